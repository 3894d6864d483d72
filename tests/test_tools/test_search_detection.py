"""The search on the detection loss as command lines, up to the training of what it finds."""

import json
import re
import shlex
import shutil

import pytest
from mmengine.config import Config

from prunet_mm.spec import NetworkSpec

CONFIG = 'configs/search/prunet_digits_det.py'
SHORT = [
    'train_cfg.max_iters=10',
    'train_cfg.warmup_iters=2',
    'train_cfg.architecture_interval=1',
    'train_cfg.architecture_fraction=0.5',
    'train_cfg.architecture_batch_size=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'optim_wrapper.architecture.optimizer.lr=0.3',
    'default_hooks.checkpoint.interval=5',
    'custom_hooks.5.interval=2',
    'custom_hooks.5.probes=2',
]


@pytest.fixture
def table(root, synthetic_table, tmp_path):
    path = tmp_path / 'table.json'
    cfg = Config.fromfile(root / CONFIG)
    synthetic_table(cfg.space.to_dict(), batch=cfg.model.latency.batch).save(path)
    return f'model.latency.table={path}'


@pytest.fixture
def lost_boxes(scenes):
    """Take the boxes of one of the four scenes away."""
    path = scenes / 'annotations/train.json'
    content = json.loads(path.read_text())
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] != 1]
    path.write_text(json.dumps(content))


@pytest.mark.usefixtures('lost_boxes', 'quick_start')
def test_from_the_search_to_the_training_of_its_network(tool, table, of_scenes, tmp_path):
    whole, again = tmp_path / 'whole', tmp_path / 'again'
    options = [*of_scenes, table, *SHORT]
    code, out, err = tool('search', CONFIG, '--work-dir', whole, *options)
    assert (code, err) == (0, '')
    spec = NetworkSpec.load(whole / 'subnet.json')
    assert spec.provenance['predicted_ms'] <= spec.provenance['budget_ms']
    assert [path.stem for path in sorted(whole.glob('*.png'))] == [
        'candidates',
        'latency',
        'network',
        'widths',
    ]

    again.mkdir()
    for name in ('history.jsonl', 'iter_5.pth'):
        shutil.copy(whole / name, again)
    code, _, err = tool('search', CONFIG, '--work-dir', again, '--resume', *options)
    assert (code, err) == (0, '')
    for name in ('history.jsonl', 'subnet.json'):
        assert (again / name).read_bytes() == (whole / name).read_bytes()

    (command,) = re.findall(r'^python tools/train\.py (.*)$', out, re.MULTILINE)
    assert command.startswith('configs/det/retinanet_prunet_digits.py ')
    options = (*of_scenes[1:], 'train_cfg.max_iters=1', 'train_dataloader.batch_size=2')
    work = ('--no-validate', '--work-dir', tmp_path / 'det')
    code, _, err = tool('train', *work, *shlex.split(command), *options)
    assert (code, err) == (0, '')
    assert (tmp_path / 'det/iter_1.pth').exists()


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        (
            'model.architecture.neck.in_channels=[48,96,96]',
            'model.architecture.neck.in_channels is [48, 96, 96], but the backbone has 48 in stage '
            '2 (stride 8), 96 in stage 3 (stride 16), 160 in stage 4 (stride 32): list the '
            'channels of those in model.architecture.backbone.out_indices',
        ),
        (
            'model.architecture.backbone.out_indices=(2,3)',
            'backbone.out_indices: found (2, 3), but the space goes on to stage 4',
        ),
        (
            'model.architecture.bbox_head.num_classes=9',
            'bbox_head.num_classes is 9, but the data set has 10 classes',
        ),
        (
            'train_dataloader.dataset.ann_file=annotations/nowhere.json',
            'annotations/nowhere.json is no file',
        ),
    ],
)
def test_bad_input_is_one_sentence(refused, table, of_scenes, tmp_path, option, sentence):
    args = ('--work-dir', tmp_path / 'work', *of_scenes, table, option)
    assert sentence in refused(*args, config=CONFIG)
