"""Searches in two processes: the same on both, resumable, and over when one of them is."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.search import SearchLoop, SearchRunner
from prunet_mm.spec import NetworkSpec

PATIENCE_S = 4  # in a step
STEPS_ALONE = dict(DeriveHook=None)  # where only the way to the end is looked at

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


@dataclass(frozen=True)
class Accident:
    """What befalls the process of a rank before its step of that number."""

    rank: int
    step: int
    signal: int

    def __call__(self, rank):
        run_iter = SearchLoop._run_iter

        def run_or_not(loop):
            if rank == self.rank and loop.iter == self.step:
                os.kill(os.getpid(), self.signal)
            run_iter(loop)

        SearchLoop._run_iter = run_or_not


def slow_to_save(rank):
    """Have the first checkpoint take longer than the processes wait for each other in a step."""
    save = SearchRunner.save_checkpoint

    def save_slowly(runner, *args, **kwargs):
        if runner.iter == 4:
            time.sleep(1.5 * PATIENCE_S)
        save(runner, *args, **kwargs)

    if rank == 0:
        SearchRunner.save_checkpoint = save_slowly


def norms_over_all(x, mean, var, weight, bias, training, momentum, eps):
    """`F.batch_norm`, in training over the images of all processes, as only GPUs have it."""
    if not training:
        return batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    count = dist.get_world_size()
    of_batch = all_reduce(x.mean((0, 2, 3))) / count
    centred = x - of_batch[:, None, None]
    spread = all_reduce(centred.square().mean((0, 2, 3))) / count
    number = count * x[:, 0].numel()
    mean.lerp_(of_batch.detach(), momentum)
    var.lerp_(spread.detach() * number / (number - 1), momentum)
    scale = weight * (spread + eps).rsqrt()
    return centred * scale[:, None, None] + bias[:, None, None]


@pytest.fixture
def search(run_ranks, quick, tiny_config, tmp_path):
    """Search in small in so many processes, on 16 images a step in all of them together."""

    def search(count, work_dir='work', *args, first=None, hooks=(), **kwargs):
        options = {
            'train_dataloader.batch_size': 16 // count,
            'train_cfg.architecture_batch_size': 16 // count,
            'train_cfg.max_iters': 25,
            'train_cfg.ramp': dict(begin=0.0, jump=True),  # so that there is time to decide
            'env_cfg.dist_cfg': dict(backend='gloo', timeout=PATIENCE_S),
        }

        def prepare(rank):
            torch.nn.functional.batch_norm = norms_over_all
            if first:
                first(rank)

        config = tiny_config(options, hooks=hooks)
        command = ['tools/search.py', config, '--work-dir', tmp_path / work_dir]
        return run_ranks(count, *command, '--launcher', 'pytorch', *args, first=prepare, **kwargs)

    return search


@pytest.fixture(scope='module')
def ends(tmp_path_factory):
    return tmp_path_factory.mktemp('ends')


@pytest.fixture
def whole(search, ends, tmp_path):
    """The work dir of a search in two processes, one of which is slow at its first checkpoint."""
    if not (ends / 'two').exists():
        for code, output in search(2, 'whole', first=slow_to_save):
            assert code == 0, output
        shutil.copytree(tmp_path / 'whole', ends / 'two')
    return ends / 'two'


def test_one_that_hangs_ends_the_other_and_resumed_it_ends_in_the_same_bits(
    search, whole, tmp_path
):
    (code, output), _ = search(2, first=Accident(1, 13, signal.SIGSTOP), hung=1)
    assert code == 2, output
    assert 'Traceback' not in output
    assert f'has not answered for {PATIENCE_S} s' in output.strip().splitlines()[-1]
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


@pytest.mark.parametrize(
    ('rank', 'what', 'sentence'),
    [
        (0, signal.SIGKILL, 'another process of this run has ended'),
        (1, signal.SIGKILL, 'another process of this run has ended'),
        (0, signal.SIGSTOP, 'another process of this run has not answered'),
    ],
)
def test_where_a_process_is_killed_or_hangs_the_other_ends_with_a_sentence(
    search, tmp_path, rank, what, sentence
):
    hung = rank if what == signal.SIGSTOP else None
    code, output = search(2, first=Accident(rank, 8, what), hung=hung)[1 - rank]
    assert code == 2, output
    assert 'Traceback' not in output
    assert output.strip().splitlines()[-1].startswith(f'error: {sentence}')
    assert (tmp_path / 'work/iter_5.pth').exists()


def read_history(work_dir):
    return [json.loads(line) for line in (work_dir / 'history.jsonl').read_text().splitlines()]


def decided(rows):
    """What was decided, and when."""
    names = ('kind', 'layer', 'candidate', 'choice')
    return [
        (row['step'], *(event.get(name) for name in names))
        for row in rows
        for event in row['events']
    ]


@pytest.fixture
def alone(search, ends, tmp_path):
    """The work dir of the same search in one process."""
    if not (ends / 'one').exists():
        ((code, output),) = search(1, 'alone', hooks=STEPS_ALONE)
        assert code == 0, output
        shutil.copytree(tmp_path / 'alone', ends / 'one')
    return ends / 'one'


@pytest.mark.parametrize('count', [2, 4])
def test_processes_decide_as_one_does_on_as_many_images(
    search, alone, whole, history, tmp_path, count
):
    """The same at the same steps, for the same losses, where norms are over all images."""
    if count > 2:
        for code, output in search(count, hooks=STEPS_ALONE):
            assert code == 0, output
    one, several = read_history(alone), read_history(whole if count == 2 else tmp_path / 'work')
    assert decided(one) == decided(several)
    assert {'candidate', 'move'} <= {kind for _, kind, *_ in decided(one)}
    for key in ('loss', 'expected_ms', 'multiplier'):
        assert [row[key] for row in several] == pytest.approx([row[key] for row in one], rel=1e-3)


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
