import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import PrunetError
from prunet_mm.search import SearchRunner, finish
from prunet_mm.spec import NetworkSpec

DIGITS = 'configs/search/prunet_digits.py'
TRAIN = 'configs/cls/prunet_digits.py'


@pytest.fixture
def start(root):
    """Start a command line as a process of its own; what is left of it in the end is killed."""
    processes = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_rows(process, work_dir, count):
    """Wait until a search has done so many steps on the architecture."""
    history, deadline = work_dir / 'history.jsonl', time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if history.exists() and history.read_bytes().count(b'\n') >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f'{count} rows were never reached: {process.communicate()}')


def same_end(one, other):
    for name in ('subnet.json', 'history.jsonl'):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    weights = [
        load_checkpoint_file(folder / 'searched.pth')['state_dict'] for folder in (one, other)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_digits_search_killed_interrupted_and_finished(
    digits, table, short, tool, start, tmp_path, monkeypatch
):
    space, latencies = digits
    work_dir = tmp_path / 'work'
    # Whatever a CPU's roundings lead to, lambda is steady, E[lat] is drawn to the budget, and some
    # candidate is below the threshold.
    short = [
        *short,
        'model.objective={"type":"AugmentedLagrangian","rate":0.01,"mu":100.0}',
        'custom_hooks.4.threshold={"start":0.3,"end":0.3}',
    ]
    options = ['--cfg-options', table, *short, 'train_dataloader.num_workers=1']
    command = ['tools/search.py', DIGITS, '--seed', 1, '--work-dir', work_dir, *options]

    process = start(*command)
    wait_for_rows(process, work_dir, 13)
    process.kill()  # kill -9
    assert process.wait() == -signal.SIGKILL
    assert not (work_dir / 'subnet.json').exists()

    process = start(*command, '--resume')
    wait_for_rows(process, work_dir, 26)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, workers included
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    sentence = err.splitlines()[-1]
    assert 'Traceback' not in err
    step, told = re.fullmatch(
        r'interrupted after step (\d+); to go on: python\S* (.+)', sentence
    ).groups()
    assert load_checkpoint_file(work_dir / f'iter_{step}.pth')['meta']['iter'] == int(step)
    assert shlex.split(told) == [*map(str, command), '--resume']

    code, out, err = tool('search', *shlex.split(told)[1:])
    assert (code, err) == (0, '')
    assert out.count('a device far away, which is not in this machine') == 1

    spec = NetworkSpec.load(work_dir / 'subnet.json')
    assert space.why_not(spec) is None
    budget_ms, predicted_ms = spec.provenance['budget_ms'], latencies.predict_ms(spec)
    assert budget_ms == pytest.approx(latencies.predict_ms(space.largest(latencies.block_ms)) / 2)
    assert predicted_ms <= budget_ms
    assert predicted_ms >= 0.99 * budget_ms or re.search('No (single granule|wider)', out)
    assert f'{predicted_ms:.4f} ms' in out
    assert spec.provenance['seed'] == 1
    rows = [json.loads(line) for line in (work_dir / 'history.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == list(range(11, 51))
    assert {event['kind'] for row in rows for event in row['events']} >= {'candidate', 'move'}
    for name in ('widths', 'candidates', 'latency', 'network'):
        assert (work_dir / f'{name}.png').stat().st_size > 5000
        assert f'{work_dir}/{name}.png' in out
    page = (work_dir / 'report.html').read_text()
    assert f'{predicted_ms:.4g} ms, {predicted_ms / budget_ms:.1%} of the budget' in page
    assert f'{work_dir}/report.html' in out
    assert (
        f'python tools/train.py {TRAIN} --cfg-options model.backbone.arch={work_dir}/subnet.json'
        in out
    )

    # the same without interruption, workers and pictures
    monkeypatch.setattr(finish, 'write_report', lambda *_: '')
    whole = tmp_path / 'whole'
    code, _, err = tool(
        *('search', DIGITS, '--seed', 1, '--work-dir', whole, '--cfg-options', table, *short)
    )
    assert (code, err) == (0, '')
    same_end(work_dir, whole)


def test_the_network_found_trains(digits, tool, tmp_path):
    digits[0].random(random.Random(0)).save(tmp_path / 'subnet.json')
    code, out, err = tool(
        *('train', TRAIN, '--work-dir', tmp_path, '--cfg-options'),
        f'model.backbone.arch={tmp_path}/subnet.json',
        *('train_cfg.max_epochs=1', 'train_dataloader.batch_size=256'),
    )
    assert (code, err) == (0, '')
    assert 'accuracy/top1' in out


def test_mixed_precision_is_for_every_wrapper(tool, options, monkeypatch):
    """With a CUDA device, which is made up here, --amp reaches both optimisers."""
    seen = []

    def from_cfg(cfg):
        seen.append(cfg)
        raise PrunetError('enough')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # for mmengine's logger
    monkeypatch.setattr(SearchRunner, 'from_cfg', from_cfg)
    code, _, err = tool('search', DIGITS, *options(), '--amp', '--seed', 5)
    assert (code, err) == (2, 'error: enough\n')
    (cfg,) = seen
    for part in ('weights', 'architecture'):
        assert cfg.optim_wrapper[part].type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper[part].loss_scale == 'dynamic'
    assert cfg.randomness == dict(seed=5)
    assert cfg.val_dataloader is None and cfg.test_dataloader is None


def test_a_budget_in_ms_and_a_network_from_a_checkpoint(
    tool, refused, options, short, digits, tmp_path
):
    space, table = digits
    target = ['--latency-target-ms', 0.4 * table.predict_ms(space.largest())]
    given = options(*short, 'train_cfg.max_iters=20', 'custom_hooks.5.threshold=0.9')
    code, _, err = tool('search', DIGITS, *given, *target)
    assert (code, err) == (0, '')
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert spec.provenance['predicted_ms'] <= spec.provenance['budget_ms'] == target[1]

    derive = [
        *given,
        '--derive-only',
        tmp_path / 'work/iter_20.pth',
        '--work-dir',
        tmp_path / 'new',
    ]
    code, out, err = tool('search', DIGITS, *derive, *target)
    assert (code, err) == (0, '')
    assert NetworkSpec.load(tmp_path / 'new/subnet.json') == spec
    assert 'Next: train it' in out
    assert not (tmp_path / 'new/history.jsonl').exists()
    assert 'another latency budget in ms' in refused(*derive)
