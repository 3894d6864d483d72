import numpy as np
import pytest

from prunet_mm.datasets.digit_scenes import (
    MAX_DIGITS,
    MAX_OVERLAP,
    SPLITS,
    compose_scenes,
)
from prunet_mm.datasets.digits import Digits

SIZE = 96


@pytest.fixture(scope='module')
def scenes():
    return list(compose_scenes('train', 100, SIZE, seed=0))


def equal(first, second):
    return all(
        np.array_equal(a, b)
        for pair in zip(first, second, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def test_scenes_depend_on_seed_and_split_alone(scenes):
    assert equal(scenes[:3], list(compose_scenes('train', 3, SIZE, seed=0)))
    assert not equal(scenes[:3], list(compose_scenes('train', 3, SIZE, seed=1)))
    assert not equal(scenes[:3], list(compose_scenes('val', 3, SIZE, seed=0)))


def test_images_and_boxes_are_as_described(scenes):
    for image, boxes, labels in scenes:
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert boxes.shape == (len(labels), 4)
        assert 1 <= len(labels) <= MAX_DIGITS
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= SIZE).all()
        assert (boxes[:, 2:] >= 3).all()


def test_everything_varies(scenes):
    boxes = np.concatenate([scene.boxes for scene in scenes])
    labels = np.concatenate([scene.labels for scene in scenes])
    heights = boxes[:, 3] / SIZE
    assert heights.min() < 0.2 < 0.4 < heights.max() < 0.6
    # in every quarter, every class, every number of digits
    assert len(np.unique((boxes[:, :2] + boxes[:, 2:] / 2) // (SIZE / 2), axis=0)) == 4
    assert set(labels) == set(range(10))
    assert {len(scene.labels) for scene in scenes} == set(range(1, MAX_DIGITS + 1))
    assert np.std([scene.image.mean() for scene in scenes]) > 20


def test_digits_overlap_a_little_and_not_more(scenes):
    overlaps = []
    for _, boxes, _ in scenes:
        low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
        sides = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
        areas = boxes[:, 2] * boxes[:, 3]
        shares = sides.clip(0).prod(-1) / np.minimum(areas, areas[:, None])
        overlaps.extend(shares[np.triu_indices(len(boxes), 1)])
    assert 0 < max(overlaps) <= MAX_OVERLAP


def test_digits_stand_out_from_what_is_around_their_box(scenes):
    contrasts = []
    for image, boxes, _ in scenes:
        if len(boxes) == 1:
            x, y, w, h = boxes[0]
            inside = np.zeros((SIZE, SIZE), bool)
            inside[y : y + h, x : x + w] = True
            gray = image.mean(2)
            contrasts.append(np.abs(gray[inside] - np.median(gray[~inside])).max())
    assert len(contrasts) > 3
    assert min(contrasts) > 25


def test_splits_are_made_of_different_digits():
    assert set(SPLITS) == {'train', 'val'}
    pixels = {split: {s['img'].tobytes() for s in Digits(SPLITS[split])} for split in SPLITS}
    assert pixels['train'] and pixels['val']
    assert not pixels['train'] & pixels['val']
