import json
import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS as ROOT
from mmengine.registry import DefaultScope

import prunet_mm
from prunet_mm.detection.coco_metric import ExactCocoMetric
from prunet_mm.detection.evaluation import use_exact_metric

CLASSES = ('cat', 'dog')
BOX = [10.0, 10.0, 30.0, 20.0]  # left, top, right, bottom


@pytest.fixture
def content():
    """Two images with a cat and a dog each."""
    boxes = [(1, 7, 0), (1, 4, 1), (2, 7, 2), (2, 4, 3)]
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in (1, 2)],
        categories=[dict(id=4, name='cat'), dict(id=7, name='dog')],
        annotations=[
            dict(
                id=i + 1, image_id=image, category_id=c, bbox=[10, 10, 20, 10], area=200, iscrowd=0
            )
            for image, c, i in boxes
        ],
    )


def prediction(image, labels=(0, 1), scores=None):
    count = len(labels)
    instances = dict(
        bboxes=torch.tensor([BOX] * count).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.ones(count) if scores is None else torch.tensor(scores),
    )
    return dict(img_id=image, ori_shape=(48, 64), pred_instances=instances)


@pytest.fixture
def evaluate(content, tmp_path, capsys):
    """The metrics of predictions on the content."""

    def evaluate(*predictions, metric=ExactCocoMetric, ann_file=True, **options):
        (tmp_path / 'val.json').write_text(json.dumps(content))
        path = str(tmp_path / 'val.json') if ann_file else None
        built = metric(ann_file=path, classwise=True, **options)
        built.dataset_meta = dict(classes=CLASSES)
        built.process({}, list(predictions))
        return {
            name.removeprefix('coco/'): value
            for name, value in built.evaluate(size=len(predictions)).items()
        }

    return evaluate


@pytest.mark.parametrize('first', [0, 1, -1, 'zero'])
def test_annotations_are_found_whatever_their_ids(evaluate, content, first):
    content['annotations'][0]['id'] = first
    assert evaluate(prediction(1), prediction(2))['bbox_mAP'] == 1


@pytest.mark.parametrize('ids', [(0, 1), (9, 2), (4, 7)])
def test_classes_keep_their_names_whatever_the_ids_of_the_categories(evaluate, content, ids):
    for annotation in content['annotations']:
        annotation['category_id'] = ids[annotation['category_id'] == 7]
    for category, new in zip(content['categories'], ids, strict=True):
        category['id'] = new
    metrics = evaluate(prediction(1, labels=(1,)), prediction(2, labels=(1,)))
    assert (metrics['cat_precision'], metrics['dog_precision']) == (0, 1)


def test_images_with_texts_as_ids(evaluate, content):
    for entry in content['images']:
        entry['id'] = f'image {entry["id"]}'
    for entry in content['annotations']:
        entry['image_id'] = f'image {entry["image_id"]}'
    assert evaluate(prediction('image 1'), prediction('image 2'))['bbox_mAP'] == 1


def test_what_is_not_predicted_on_is_not_missed(evaluate):
    with pytest.warns(UserWarning, match='evaluated on 1 of 2 annotated images'):
        assert evaluate(prediction(2))['bbox_mAP'] == 1


def test_an_image_that_is_repeated_counts_once(evaluate):
    metrics = evaluate(*[prediction(1), prediction(2)] * 2)
    assert metrics['bbox_mAP'] == 1


def test_no_detections_are_zeros(evaluate):
    metrics = evaluate(prediction(1, labels=()), prediction(2, labels=()))
    assert metrics['bbox_mAP'] == metrics['bbox_mAP_50'] == metrics['cat_precision'] == 0


def test_a_class_without_boxes_has_no_precision(evaluate, content):
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] == 7]
    metrics = evaluate(prediction(1, labels=()), prediction(2, labels=()))
    assert math.isnan(metrics['cat_precision'])
    assert metrics['dog_precision'] == metrics['bbox_mAP'] == 0


def test_the_truth_may_come_with_the_samples(evaluate):
    boxes = [dict(bbox=BOX, bbox_label=label) for label in (0, 1)]
    samples = [dict(prediction(i), instances=boxes) for i in (1, 2)]
    assert evaluate(*samples, ann_file=False)['bbox_mAP'] == 1
    samples = [dict(prediction(i, labels=()), instances=boxes) for i in (1, 2)]
    assert evaluate(*samples, ann_file=False)['bbox_mAP'] == 0


def test_what_was_right_before_is_the_same(evaluate, content):
    from mmdet.evaluation import CocoMetric

    rng = np.random.default_rng(0)
    content['annotations'][2]['iscrowd'] = 1
    samples = [
        prediction(i, labels=(0, 1, 1, 0), scores=rng.random(4).astype(np.float32)) for i in (1, 2)
    ]
    ours, theirs = evaluate(*samples), evaluate(*samples, metric=CocoMetric)
    assert ours == pytest.approx(theirs, nan_ok=True)
    assert 0 < ours['bbox_mAP'] < 1


def test_it_takes_the_place_of_mmdets_and_is_known_to_other_tools():
    prunet_mm.register_all_modules()
    metric = dict(type='CocoMetric', metric='bbox')
    cfg = Config(dict(val_evaluator=metric, test_evaluator=[metric, dict(type='DumpResults')]))
    use_exact_metric(cfg)
    assert cfg.val_evaluator.type == cfg.test_evaluator[0].type == 'mmdet.ExactCocoMetric'
    assert cfg.test_evaluator[1].type == 'DumpResults'
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert isinstance(ROOT.build(cfg.val_evaluator), ExactCocoMetric)
