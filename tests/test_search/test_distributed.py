"""Searches in two processes: the same on both, resumable, and over when one of them is."""

import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.search import SearchLoop
from prunet_mm.spec import NetworkSpec

# What each process has in the end, and which files it wrote
WITNESS = """
import os
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from prunet_mm.search import finish

@HOOKS.register_module()
class WitnessHook(Hook):
    priority = 'LOWEST'

    def after_train(self, runner):
        model = runner.model
        end = dict(
            weights=model.state_dict(),
            layers={k: list(v.candidates) for k, v in model.supernet.layers().items()},
            rank=runner.rank,
            loss=float(runner.message_hub.get_scalar('train/weights/loss').current()),
        )
        torch.save(end, os.environ['WITNESS'] + f'.{runner.rank}')
"""


def test_two_processes_prune_the_same_and_write_once(root, tiny_config, history, tmp_path):
    (tmp_path / 'witness.py').write_text(WITNESS)
    options = {
        'custom_imports': dict(imports=['prunet_mm', 'witness']),
        'train_cfg.max_iters': 25,
        'train_cfg.ramp': dict(begin=0.0, jump=True),  # so that there is time to remove something
    }
    config = tiny_config(options, hooks=dict(WitnessHook={}))
    work_dir = tmp_path / 'work'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    tool = [f'--master_port={port}', 'tools/search.py', config, '--work-dir', work_dir]
    settings = ['--launcher', 'pytorch', '--cfg-options', 'env_cfg.dist_cfg.backend=gloo']
    process = subprocess.Popen(
        [*launch, *map(str, tool), *settings],
        cwd=root,
        env=os.environ
        | dict(
            PYTHONPATH=str(tmp_path),
            WITNESS=str(tmp_path / 'end'),
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output

    ends = [torch.load(f'{tmp_path}/end.{rank}', weights_only=True) for rank in (0, 1)]
    assert [end['rank'] for end in ends] == [0, 1]
    assert ends[0]['loss'] != ends[1]['loss']  # each saw images of its own
    one, other = (end.pop('weights') for end in ends)
    assert ends[0]['layers'] == ends[1]['layers']
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, equal_nan=True)

    rows = history()
    assert [row['step'] for row in rows] == list(range(6, 26))
    assert {e['kind'] for row in rows for e in row['events']} >= {'candidate', 'move'}
    spec = NetworkSpec.load(work_dir / 'subnet.json')
    names = {f'stage{layer.stage}' for layer in spec.layers}
    assert names == {name.partition('.')[0] for name in ends[0]['layers']}
    assert len(spec.layers) == len(ends[0]['layers'])
    assert len(list(work_dir.glob('*/vis_data/scalars.json'))) == 1
    assert sorted(path.name for path in work_dir.glob('*.pth')) == [
        'iter_20.pth',
        'iter_25.pth',
        'searched.pth',
    ]


def dying(steps):
    """Have the process of a rank killed before its step of that number; `steps` is by rank."""

    def first(rank):
        run_iter = SearchLoop._run_iter

        def run_or_die(loop):
            if loop.iter == steps.get(rank):
                os.kill(os.getpid(), signal.SIGKILL)
            run_iter(loop)

        SearchLoop._run_iter = run_or_die

    return first


@pytest.fixture
def search(run_ranks, quick, tiny_config, tmp_path):
    """Search in small in so many processes, on 16 images a step in all of them together."""

    def search(count, work_dir='work', *args, steps=()):
        options = {
            'train_dataloader.batch_size': 16 // count,
            'train_cfg.architecture_batch_size': 16 // count,
            'train_cfg.max_iters': 25,
            'env_cfg.dist_cfg.backend': 'gloo',
        }
        command = ['tools/search.py', tiny_config(options), '--work-dir', tmp_path / work_dir]
        first = dying(dict(steps))
        return run_ranks(count, *command, '--launcher', 'pytorch', *args, first=first)

    return search


@pytest.fixture(scope='module')
def ends(tmp_path_factory):
    return tmp_path_factory.mktemp('ends')


@pytest.fixture
def whole(search, ends, tmp_path):
    """The work dir of a search in two processes that nothing happened to."""
    if not (ends / 'two').exists():
        assert [code for code, _ in search(2, 'whole')] == [0, 0]
        shutil.copytree(tmp_path / 'whole', ends / 'two')
    return ends / 'two'


def test_resumed_in_two_processes_it_ends_in_the_same_bits(search, whole, tmp_path):
    assert [code for code, _ in search(2, steps={0: 13, 1: 13})] == [-signal.SIGKILL] * 2
    for code, output in search(2, 'work', '--resume'):
        assert code == 0, output
    for name in ('history.jsonl', 'subnet.json'):
        assert (tmp_path / 'work' / name).read_bytes() == (whole / name).read_bytes()
    one, other = (
        load_checkpoint_file(folder / 'searched.pth')['state_dict']
        for folder in (whole, tmp_path / 'work')
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('killed', [0, 1])
def test_where_a_process_is_killed_the_other_ends_with_a_sentence(search, tmp_path, killed):
    ends = search(2, steps={killed: 8})
    assert ends[killed][0] == -signal.SIGKILL
    code, output = ends[1 - killed]
    assert code == 2, output
    assert 'Traceback' not in output
    assert (
        output.strip().splitlines()[-1].startswith('error: another process of this run has ended')
    )
    assert (tmp_path / 'work/iter_5.pth').exists()


def test_two_processes_search_as_one_does_on_as_many_images(search, whole, history):
    """At the same steps; losses and E[lat] differ by norms over half of the images."""
    ((code, output),) = search(1)
    assert code == 0, output
    one = history()
    two = [json.loads(line) for line in (whole / 'history.jsonl').read_text().splitlines()]
    for key in ('step', 'progress'):
        assert [row[key] for row in one] == [row[key] for row in two]
    assert [bool(row['budget_ms']) for row in one] == [bool(row['budget_ms']) for row in two]
    for key in ('loss', 'expected_ms'):
        mean = statistics.mean(row[key] for row in one)
        assert statistics.mean(row[key] for row in two) == pytest.approx(mean, rel=0.1)


def test_a_step_of_two_processes_is_that_of_one_on_their_images(
    make_search, started, in_two_processes
):
    """But for rounding; with norms that do not depend on the batch."""
    runner = started(make_search())
    model, wrapper = runner.model.eval(), runner.optim_wrapper['weights']
    (batch,) = runner.train_loop.dataloader.probe('weights', 1)
    path = model.supernet.draw_path(random.Random(0), exploration=1.0)

    def step(part):
        images = {name: values[part] for name, values in batch.items()}
        model.weight_step(iter([images]), wrapper, path)
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = in_two_processes(lambda rank: step(slice(8 * rank, 8 * rank + 8)))
    alone = step(slice(0, 16))
    assert any(not torch.equal(alone[name], before[name]) for name in alone)
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], rtol=1e-4, atol=1e-6)
        # what no network of the step has stays as it is, in spite of weight decay
        assert torch.equal(first[name], before[name]) == torch.equal(alone[name], before[name])
