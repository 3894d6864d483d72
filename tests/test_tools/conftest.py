"""Tools as command lines, run in this process, and the digits search that most are tried on."""

import runpy
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import runner as mmengine_runner

from prunet_mm.spec import SearchSpace

DIGITS = 'configs/search/prunet_digits.py'


@pytest.fixture(scope='session')
def digits(root, synthetic_table):
    """The digits' space, and a table of it on a device that is not here."""
    cfg = Config.fromfile(root / DIGITS)
    space = SearchSpace.from_dict(cfg.space.to_dict())

    return space, synthetic_table(cfg.space.to_dict(), batch=cfg.model.latency.batch)


@pytest.fixture
def table(digits, tmp_path):
    path = tmp_path / 'table.json'
    digits[1].save(path)
    return f'model.latency.table={path}'


@pytest.fixture
def run_tool(root, monkeypatch, capsys):
    """Run a tool as a command line, in this process; returns exit code, stdout and stderr."""

    def run(name, *args):
        monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', *map(str, args)])
        try:
            runpy.run_path(str(root / f'tools/{name}.py'), run_name='__main__')
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def tool(run_tool, root, monkeypatch, fresh_mmengine_globals):
    """The same from the checkout, for tools that build a runner."""

    def run(name, *args):
        fresh_mmengine_globals()
        monkeypatch.chdir(root)
        threads = torch.get_num_threads()
        try:
            return run_tool(name, *args)
        finally:
            torch.set_num_threads(threads)

    return run


@pytest.fixture
def quick_start(monkeypatch):
    """Leave out of a run what takes longest before its first step: what the log tells of it."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr(mmengine_runner, 'collect_env', dict)


@pytest.fixture
def refused(tool, quick_start):
    """Run a search that is refused; returns the one sentence."""

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
def short():
    """Options for the digits search in a reduced form: steeper, since it has fewer steps."""
    return [
        'train_cfg.max_iters=50',
        'train_cfg.warmup_iters=10',
        'train_cfg.architecture_batch_size=16',
        'train_dataloader.batch_size=16',
        'optim_wrapper.architecture.optimizer.lr=0.08',
        'default_hooks.checkpoint.interval=20',
        'custom_hooks.5.interval=2',
        'custom_hooks.5.probes=2',
    ]


@pytest.fixture
def scenes(tool, tmp_path):
    """A few scenes of digits, in COCO's format."""
    out = tmp_path / 'scenes'
    numbers = ('--train', '4', '--val', '2', '--size', '96')
    code, _, err = tool('dataset_converters/digits_to_coco', '--out', out, *numbers)
    assert code == 0, err
    return out


@pytest.fixture
def of_scenes(scenes):
    """Options with which a config for scenes of digits reads those few."""
    options = [
        f'{split}_dataloader.dataset.data_root={scenes}' for split in ('train', 'val', 'test')
    ]
    evaluators = [
        f'{split}_evaluator.ann_file={scenes}/annotations/val.json' for split in ('val', 'test')
    ]
    return ['--cfg-options', *options, *evaluators]
