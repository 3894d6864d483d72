"""Detectors through the command lines: train, evaluate, draw, go on, and what is refused."""

import json

import pytest
import torch
from PIL import Image

from prunet_mm.engine.checkpoint import load_checkpoint_file

RETINANET = 'configs/det/retinanet_prunet_digits.py'
EFFICIENTDET = 'configs/det/efficientdet_prunet_digits.py'
SHORT = (
    *('train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'train_dataloader.batch_size=2'),
    *('default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1'),
    'model.test_cfg.score_thr=0.0',
)


@pytest.fixture
def train(tool, of_scenes, tmp_path, quick_start):
    """Train for four steps in a folder; returns what was printed."""

    def train(config, folder, *args, options=()):
        code, out, err = tool(
            *('train', config, '--work-dir', tmp_path / folder, *args),
            *(*of_scenes, *SHORT, *options),
        )
        assert code == 0, err
        return out

    return train


@pytest.fixture
def evaluate(tool, of_scenes, tmp_path, quick_start):
    """Test a checkpoint; returns what was printed."""

    def evaluate(config, checkpoint, *args, options=('model.test_cfg.score_thr=0.0',)):
        code, out, err = tool(
            *('test', config, checkpoint, '--work-dir', tmp_path / 'test', *args),
            *(*of_scenes, *options),
        )
        assert code == 0, err
        return out

    return evaluate


@pytest.mark.parametrize('config', [RETINANET, EFFICIENTDET])
def test_trains_is_evaluated_and_goes_on_as_if_never_stopped(train, evaluate, tmp_path, config):
    out = train(config, 'first')
    assert '|category|mAP|mAP_50|mAP_75|mAP_s|mAP_m|mAP_l|' in ''.join(out.split())
    logs = [json.loads(line) for line in next(tmp_path.glob('first/*/vis_data/*.json')).open()]
    validated = logs[-1]

    metrics, end = tmp_path / 'metrics.json', tmp_path / 'first/iter_4.pth'
    evaluate(config, end, '--out', metrics, '--out-item', 'metrics')
    tested = json.loads(metrics.read_text())
    names = {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_s', 'coco/bbox_mAP_m'}
    assert names | {f'coco/{digit}_precision' for digit in range(10)} <= tested.keys()
    assert all(tested[name] == pytest.approx(validated[name], nan_ok=True) for name in names)

    assert 'after step 2/4' in train(config, 'second', '--resume', tmp_path / 'first/iter_2.pth')
    weights, resumed = (
        load_checkpoint_file(tmp_path / folder / 'iter_4.pth')['state_dict']
        for folder in ('first', 'second')
    )
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


def test_predictions_are_drawn_and_written(train, evaluate, scenes, tmp_path):
    train(RETINANET, 'work')
    checkpoint = tmp_path / 'work/iter_4.pth'
    written, drawn = tmp_path / 'predictions.json', tmp_path / 'new/pictures'
    settings = ['default_hooks.visualization.score_thr=0.0', 'model.test_cfg.score_thr=0.0']
    out = evaluate(
        *(RETINANET, checkpoint, '--out', written, '--show-dir', drawn, '--interval', '2'),
        options=settings,
    )
    assert out.splitlines()[-1] == f'predictions are drawn in {drawn}'
    samples = json.loads(written.read_text())
    assert [sample['img_id'] for sample in samples] == [1, 2]
    assert len(samples[0]['pred_instances']['bboxes']) == 50
    assert [path.name for path in drawn.iterdir()] == ['000001.jpg.png']  # every second
    with Image.open(drawn / '000001.jpg.png') as picture:
        assert picture.size == (2 * 6 * 96, 6 * 96)  # enlarged, annotations on the left
    evaluate(RETINANET, checkpoint, '--out', written, '--tta', options=settings)
    for plain, merged in zip(samples, json.loads(written.read_text()), strict=True):
        plain, merged = plain['pred_instances'], merged['pred_instances']
        assert merged['scores'] != plain['scores']
        assert max(merged['scores']) >= max(plain['scores']) - 1e-5  # of two views
        assert all(0 <= left <= right <= 96 for left, _, right, _ in merged['bboxes'])


def change(path, function):
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def without_area(content):
    content['annotations'][0].update(bbox=[10, 10, 0, 20], area=0)
    content['annotations'][1].update(bbox=[500, 10, 20, 20])


def of_one_image(content):
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] == 1]


@pytest.mark.parametrize(
    ('spoil', 'warnings'),
    [
        (
            without_area,
            [
                'have an area of 0 or less and are left out in training',
                'lie outside of their image and are left out in training',
                'have no width or height, so that they cannot be found',
                'lie outside of their image, so that they cannot be found',
            ],
        ),
        (of_one_image, []),
    ],
)
def test_odd_boxes_and_batches_without_any_train_to_finite_weights(
    train, scenes, tmp_path, recwarn, spoil, warnings
):
    for split in ('train', 'val'):
        change(scenes / f'annotations/{split}.json', spoil)
    train(RETINANET, 'work', options=['train_dataloader.batch_size=1'])
    said = [str(w.message) for w in recwarn if ' boxes ' in str(w.message)]
    assert len(said) == len(warnings)
    assert all(any(words in sentence for sentence in said) for words in warnings)
    weights = load_checkpoint_file(tmp_path / 'work/iter_4.pth')['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('optim_wrapper.optimizer.lr=1e30', 'the loss is not finite: loss_'),
        ('train_dataloader.dataset.pipeline.2.scale=(32,32)', 'a norm cannot train on so little'),
        ('train_dataloader.num_workers=1', '.jpg: is not an image that can be read'),
    ],
)
def test_what_is_found_while_training_is_one_sentence(
    tool, scenes, of_scenes, tmp_path, quick_start, option, words
):
    if 'workers' in option:
        for path in (scenes / 'train').iterdir():
            path.write_text('no image')
    options = (*of_scenes, *SHORT, 'train_dataloader.batch_size=1', option)
    code, out, err = tool('train', RETINANET, '--work-dir', tmp_path / 'work', *options)
    (sentence,) = [line for line in err.splitlines() if line.startswith('error: ')]
    assert (code, words in sentence) == (2, True)
    assert err.endswith(sentence + '\n')
    assert 'Traceback' not in out + err
