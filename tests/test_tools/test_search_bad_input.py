import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.engine.lock import only_run
from prunet_mm.latency import LatencyTable

DIGITS = 'configs/search/prunet_digits.py'
TRAIN = 'configs/cls/prunet_digits.py'


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
    largest_ms = table.predict_ms(space.largest())
    for target in ('0.001', '1e9'):
        sentence = refused(*options(), '--latency-target-ms', target)
        assert f'budget of {float(target):.4g} ms is infeasible' in sentence
        limits = r'smallest network takes ([\d.]+) ms and the largest ([\d.]+) ms'
        lowest, highest = map(float, re.search(limits, sentence).groups())
        assert 0 < lowest < largest_ms / 4
        assert 0.999 * largest_ms < highest <= largest_ms  # rounded inwards: it can be asked for
    for target in ('0', '-1', 'nan'):
        assert 'above 0' in refused(*options(), '--latency-target-ms', target)


@pytest.mark.parametrize(
    ('targets', 'words'),
    [
        (['0.5', '0.4'], 'found 0.4 behind 0.5, expected latencies that rise'),
        (['0.5', '0.5'], 'found 0.5 behind 0.5'),
        (['0.0001', '0.5'], 'budget of 0.0001 ms is infeasible'),
        (['0.5', '1e9'], 'budget of 1e+09 ms is infeasible'),
        (['-1', '0.5'], 'expected numbers above 0'),
        (['0.5', '--latency-target-ms', '0.4'], '--latency-targets-ms: give one of them'),
    ],
)
def test_targets_that_cannot_be(refused, options, targets, words):
    assert words in refused(*options(), '--latency-targets-ms', *targets)


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


def test_a_table_that_does_not_come_with_the_package(refused, tmp_path):
    (tmp_path / 'train/cat').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(tmp_path / 'train/cat/1.jpg')
    settings = [
        f'train_dataloader.dataset.data_root={tmp_path}',
        'model.architecture.head.num_classes=1',
        'train_dataloader.num_workers=0',
        'model.latency.table=h100_trt_fp16_b1',
    ]
    sentence = refused(
        *('--work-dir', tmp_path / 'work', '--cfg-options', *settings),
        config='configs/search/prunet_v100.py',
    )
    assert 'no latency table h100_trt_fp16_b1; measure one: ' in sentence


def test_the_v100_without_imagenet(refused, tmp_path):
    root = f'train_dataloader.dataset.data_root={tmp_path}/imagenet'
    sentence = refused(
        *('--work-dir', tmp_path / 'work', '--cfg-options', root),
        config='configs/search/prunet_v100.py',
    )
    assert f'The images are missing: {tmp_path}/imagenet is no folder' in sentence
    assert 'imagenet/train/CLASS/IMAGE.JPEG' in sentence
    assert 'configs/search/prunet_digits.py' in sentence


def test_images_that_are_missing(refused, tmp_path):
    root = f'train_dataloader.dataset.data_root={tmp_path}/nowhere'
    sentence = refused(
        *('--work-dir', tmp_path / 'work', '--cfg-options', root),
        config='configs/search/prunet_cifar10.py',
    )
    assert f'{tmp_path}/nowhere is no folder' in sentence
    assert 'data/cifar10/train/CLASS/IMAGE.jpg' in sentence
    assert not (tmp_path / 'work').exists()


def test_a_loss_that_is_not_finite(refused, options, short, tmp_path):
    exploding = ['default_hooks.checkpoint.interval=1', 'optim_wrapper.weights.optimizer.lr=1e30']
    sentence = refused(*options(*short[:-3], *exploding))
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
        (['--cfg-options', 'custom_hooks.5.threshold=2'], 'a threshold between 0 and 1'),
        (['--seed', '-1'], 'randomness.seed is -1: expected a whole number of at least 0'),
        (['--cfg-options', 'model.latency.budget_ms=abc'], "budget_ms is 'abc': expected a finite"),
        (['--cfg-options', 'model.latency.budget_ratio=nan'], 'budget_ratio is nan: expected'),
        (['--latency-target-ms', 'nan'], 'budget_ms: found nan, expected a number above 0'),
        (['--cfg-options', 'space.resolution=16'], 'set model.architecture.backbone.space.res'),
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


def test_a_work_dir_that_is_in_use_or_cannot_be(refused, options, tmp_path, run_python):
    (tmp_path / 'file').touch()
    sentence = refused(*options()[2:], '--work-dir', tmp_path / 'file/work')
    assert 'cannot write to the work dir' in sentence
    with only_run(tmp_path / 'work'):  # of a process, so it takes another one
        done = run_python('tools/search.py', DIGITS, *options(), '--resume')
    assert done.returncode == 2
    assert re.fullmatch(r'error: another process is running in .*/work: .*\n', done.stderr)
