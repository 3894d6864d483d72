import contextlib
import json
import os
import random
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import runner as mmengine_runner

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import PrunetError
from prunet_mm.latency import LatencyTable
from prunet_mm.search import SearchRunner, finish
from prunet_mm.spec import NetworkSpec, SearchSpace

DIGITS = 'configs/search/prunet_digits.py'
TRAIN = 'configs/cls/prunet_digits.py'
# The digits search in a reduced form: steeper, since it has fewer steps
SHORT = [
    'train_cfg.max_iters=50',
    'train_cfg.warmup_iters=10',
    'train_cfg.architecture_batch_size=16',
    'train_dataloader.batch_size=16',
    'optim_wrapper.architecture.optimizer.lr=0.08',
    'default_hooks.checkpoint.interval=20',
    'custom_hooks.4.interval=2',
    'custom_hooks.4.probes=1',
]


@pytest.fixture(scope='session')
def digits(root):
    """The digits' space, and a table of it on a device that is not here."""
    cfg = Config.fromfile(root / DIGITS)
    space = SearchSpace.from_dict(cfg.space.to_dict())

    def latency_ms(key):
        pixels = (key.height // key.stride) * (key.width // key.stride)
        channels = (key.hidden or key.out_channels) * (2 if key.op == 'fused_irb' else 1)
        return 0.01 + 3e-5 * pixels * key.kernel * channels

    entries = [
        dict(key._asdict(), latency_ms=latency_ms(key), iqr_ms=0.0, samples=3)
        for key in space.block_keys()
    ]
    table = LatencyTable.from_dict(
        dict(
            schema_version=1,
            kind='measured',
            device='a device far away',
            backend='eager',
            dtype='float32',
            batch=64,
            threads=1,
            software={},
            date='2026-01-01',
            protocol={},
            entries=entries,
        )
    )
    return space, table


@pytest.fixture
def table(digits, tmp_path):
    path = tmp_path / 'table.json'
    digits[1].save(path)
    return f'model.latency.table={path}'


@pytest.fixture
def tool(root, monkeypatch, capsys):
    """Run a tool as a command line, in this process; returns exit code, stdout and stderr."""

    def run(name, *args):
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', *map(str, args)])
        threads = torch.get_num_threads()
        try:
            runpy.run_path(f'tools/{name}.py', run_name='__main__')
            code = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return run


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
    digits, table, tool, start, tmp_path, monkeypatch
):
    space, latencies = digits
    work_dir = tmp_path / 'work'
    options = ['--cfg-options', table, *SHORT, 'train_dataloader.num_workers=1']
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
    assert budget_ms == pytest.approx(latencies.predict_ms(space.largest()) / 2)
    assert predicted_ms <= budget_ms
    assert predicted_ms >= 0.99 * budget_ms or 'No single granule fits' in out
    assert f'{predicted_ms:.4f} ms' in out
    assert spec.provenance['seed'] == 1
    rows = [json.loads(line) for line in (work_dir / 'history.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == list(range(11, 51))
    assert {event['kind'] for row in rows for event in row['events']} >= {'candidate', 'move'}
    for name in ('widths', 'candidates', 'latency', 'network'):
        assert (work_dir / f'{name}.png').stat().st_size > 5000
        assert f'{work_dir}/{name}.png' in out
    assert (
        f'python tools/train.py {TRAIN} --cfg-options model.backbone.arch={work_dir}/subnet.json'
        in out
    )

    # the same without interruption, workers and pictures
    monkeypatch.setattr(finish, 'write_report', lambda *_: '')
    whole = tmp_path / 'whole'
    code, _, err = tool(
        *('search', DIGITS, '--seed', 1, '--work-dir', whole, '--cfg-options', table, *SHORT)
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


@pytest.fixture
def refused(tool, monkeypatch):
    """Run a search that is refused; returns the one sentence."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # what takes longest until then
    monkeypatch.setattr(mmengine_runner, 'collect_env', dict)

    def run(*args, name='search', config=DIGITS):
        code, out, err = tool(name, config, *args)
        assert code == 2, (code, out, err)
        assert err.startswith('error: ') and err.count('\n') == 1, err
        assert 'Traceback' not in out + err
        return err.removeprefix('error: ').rstrip()

    return run


@pytest.fixture
def options(table, tmp_path):
    """Arguments for a search in a folder of its own with these options."""

    def options(*settings):
        return ['--work-dir', tmp_path / 'work', '--cfg-options', table, *settings]

    return options


@pytest.fixture
def changed(root, tmp_path):
    """Write a config like that of the digits, with one stage of its space changed."""

    def write(**stage):
        space = Config.fromfile(root / DIGITS).space.to_dict()
        space['stages'][1].update(stage)
        model = dict(architecture=dict(backbone=dict(space=space)))
        path = tmp_path / 'changed.py'
        path.write_text(f"_base_ = '{root / DIGITS}'\nmodel = {model}\n")
        return path

    return write


@pytest.mark.parametrize(
    ('stage', 'sentence'),
    [
        (dict(colour='red'), r'stages\[1\].*colour'),
        (dict(width='wide'), r'stages\[1\]\.width.*wide'),
        (dict(width=0), r'stages\[1\]\.width.*0'),
        (dict(granularity=7, max_expansion=0), r'stages\[1\]\.max_expansion.*0'),
        (dict(granularity=1000), r'stages\[1\].*1000'),
        (dict(ops=[]), r'stages\[1\]\.ops'),
        (dict(kernels=[]), r'stages\[1\]\.kernels'),
        (dict(kernels=[4]), r'stages\[1\]\.kernels.*4'),
        (dict(ops=['pooling']), r'stages\[1\]\.ops.*pooling'),
        (dict(depth=0), r'stages\[1\]\.depth.*0'),
    ],
)
def test_impossible_spaces(refused, changed, options, stage, sentence):
    assert re.search(sentence, refused(*options(), config=changed(**stage)))


def test_budgets_that_no_network_meets(refused, options, digits):
    space, table = digits
    largest = f'{table.predict_ms(space.largest()):.4g} ms'
    for target in ('0.001', '1e9'):
        sentence = refused(*options(), '--latency-target-ms', target)
        assert f'budget of {float(target):.4g} ms is infeasible' in sentence
        smallest = re.search(r'smallest network takes ([\d.]+) ms', sentence)[1]
        assert 0 < float(smallest) < table.predict_ms(space.largest()) / 4
        assert f'the largest {largest}' in sentence
    for target in ('0', '-1', 'nan'):
        assert 'above 0' in refused(*options(), '--latency-target-ms', target)


def test_tables_that_do_not_fit(refused, options, digits, table, tmp_path):
    path = table.partition('=')[2]
    data = digits[1].to_dict()
    data['entries'] = data['entries'][:-3]
    LatencyTable.from_dict(data).save(path)
    sentence = refused(*options())
    assert sentence.startswith(f'{path} has no latency for ')
    assert ' and 2 more blocks; ' in sentence
    assert f'python tools/build_latency_table.py CONFIG --out {path}' in sentence
    (tmp_path / 'table.json').write_text('{"schema_version": 1')
    assert 'is cut off or not JSON' in refused(*options())


def test_the_v100_without_its_table(refused, tmp_path):
    (tmp_path / 'train/cat').mkdir(parents=True)
    settings = [f'train_dataloader.dataset.data_root={tmp_path}', 'train_dataloader.num_workers=0']
    sentence = refused(
        *('--work-dir', tmp_path / 'work', '--cfg-options', *settings),
        config='configs/search/prunet_v100.py',
    )
    assert 'no latency table work_dirs/tables/v100_trt_fp16_b1.json; measure one: ' in sentence


def test_images_that_are_missing(refused, tmp_path):
    root = f'train_dataloader.dataset.data_root={tmp_path}/nowhere'
    sentence = refused(
        *('--work-dir', tmp_path / 'work', '--cfg-options', root),
        config='configs/search/prunet_cifar10.py',
    )
    assert f'{tmp_path}/nowhere is no folder' in sentence
    assert 'data/cifar10/train/CLASS/IMAGE.jpg' in sentence
    assert not (tmp_path / 'work').exists()


def test_a_loss_that_is_not_finite(refused, options, tmp_path):
    exploding = ['default_hooks.checkpoint.interval=1', 'optim_wrapper.weights.optimizer.lr=1e30']
    sentence = refused(*options(*SHORT[:-3], *exploding))
    words = r'Step (\d+): The loss is not finite: (\w+) = (?:nan|inf)'
    step, term = re.match(words, sentence).groups()
    assert term == 'loss'
    last = tmp_path / 'work' / f'iter_{int(step) - 1}.pth'
    assert load_checkpoint_file(last)['meta']['iter'] == int(step) - 1


def test_a_work_dir_that_holds_a_search(refused, options, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/history.jsonl').touch()
    sentence = refused(*options())
    assert f'{tmp_path}/work already holds a search (history.jsonl): add --resume' in sentence


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--amp'], 'mixed precision (--amp) needs a CUDA device'),
        (['--cfg-options', 'optim_wrapper.weights.type=AmpOptimWrapper'], 'mixed precision'),
        (['--launcher', 'pytorch'], 'RANK is not set'),
        (['--cfg-options', 'train_cfg.max_iters.typo=1'], '--cfg-options do not fit'),
        (['--cfg-options', 'train_cfg.typo=1'], 'typo'),
        (['--cfg-options', 'train_cfg.warmup_iters=500'], 'leaves nothing of max_iters=500'),
        (['--cfg-options', 'model.objective.type=Typo'], 'Typo'),
        (['--cfg-options', 'custom_hooks.4.threshold=2'], 'a threshold between 0 and 1'),
        (['--resume', 'nowhere.pth'], 'nowhere.pth: there is no such checkpoint'),
        (['--derive-only', 'nowhere.pth'], 'nowhere.pth: there is no such checkpoint'),
    ],
)
def test_command_lines_that_cannot_be(refused, options, monkeypatch, args, words):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert words in refused(*options(), *args)


def test_an_option_without_a_value(tool, options):
    code, _, err = tool('search', DIGITS, *options('nonsense'))
    assert code == 2
    assert err.splitlines()[-1].endswith("takes KEY=VALUE, not 'nonsense'")


def test_configs_of_something_else(refused, tmp_path):
    assert 'expected an ArchitectureSearch' in refused('--work-dir', tmp_path, config=TRAIN)
    assert 'there is no such config file' in refused('--work-dir', tmp_path, config='nowhere.py')


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def files(tmp_path):
    """Checkpoints that are refused, and the word that says why."""
    marker = tmp_path / 'marker'
    torch.save(dict(state_dict=Evil(marker), meta=dict(epoch=0, iter=1)), tmp_path / 'evil.pth')
    torch.save(dict(state_dict={}, meta=dict(epoch=0, iter=1)), tmp_path / 'other.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'evil.pth').read_bytes()[:300])
    yield {
        tmp_path / 'evil.pth': 'refused, because it asks for the Python object',
        tmp_path / 'other.pth': 'no checkpoint of a search',
        tmp_path / 'cut.pth': 'damaged',
    }
    assert not marker.exists()


@pytest.mark.parametrize('flag', ['--resume', '--derive-only'])
def test_checkpoints_that_are_no_search(refused, options, files, flag):
    for path, words in files.items():
        sentence = refused(*options(), flag, path)
        assert words in sentence and str(path) in sentence


def test_a_malicious_checkpoint_is_refused_by_training(refused, files, tmp_path):
    evil = next(iter(files))
    ways = [
        ['--resume', evil],
        ['--cfg-options', f'load_from={evil}'],
        ['--cfg-options', 'model.init_cfg.type=Pretrained', f'model.init_cfg.checkpoint={evil}'],
    ]
    for way in ways:
        sentence = refused('--work-dir', tmp_path, *way, name='train', config=TRAIN)
        assert 'refused, because it asks for the Python object' in sentence


def test_bad_input_in_a_process_of_its_own(run_python, options, changed):
    done = run_python('tools/search.py', changed(depth=0), *options())
    assert done.returncode == 2
    assert re.fullmatch(r'error: .*stages\[1\]\.depth.*\n', done.stderr)


def test_mixed_precision_is_for_every_wrapper(tool, options, monkeypatch):
    """With a CUDA device, which is made up here, --amp reaches both optimisers."""
    seen = []

    def from_cfg(cfg):
        seen.append(cfg)
        raise PrunetError('enough')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(SearchRunner, 'from_cfg', from_cfg)
    code, _, err = tool('search', DIGITS, *options(), '--amp', '--seed', 5)
    assert (code, err) == (2, 'error: enough\n')
    (cfg,) = seen
    for part in ('weights', 'architecture'):
        assert cfg.optim_wrapper[part].type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper[part].loss_scale == 'dynamic'
    assert cfg.randomness == dict(seed=5)
    assert cfg.val_dataloader is None and cfg.test_dataloader is None


def test_a_budget_in_ms_and_a_network_from_a_checkpoint(tool, refused, options, digits, tmp_path):
    space, table = digits
    target = ['--latency-target-ms', 0.4 * table.predict_ms(space.largest())]
    given = options(*SHORT, 'train_cfg.max_iters=20', 'custom_hooks.4.threshold=0.9')
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
    assert 'has a budget of' in refused(*derive)
