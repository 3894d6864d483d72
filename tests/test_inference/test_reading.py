import numpy as np
import pytest
import torch

from prunet_mm.inference.reading import Findings, Selection, best_classes, detections, iou


def boxes(count, seed=0):
    random = np.random.RandomState(seed)
    corners = random.rand(count, 2) * 60
    return np.concatenate([corners, corners + 5 + random.rand(count, 2) * 30], 1).astype('f4')


def selection(**options):
    known = dict(score_threshold=0.1, candidates=9, iou_threshold=0.5, limit=99, levels=(6,))
    return Selection(**known | options)


@pytest.mark.parametrize('limit', [5, 999])
def test_suppression_is_that_of_mmcv(limit):
    from mmcv.ops import batched_nms

    random = np.random.RandomState(1)
    found = Findings(random.rand(200).astype('f4'), random.randint(3, size=200), boxes(200))
    kept = selection(limit=limit).suppress(found)
    scores, labels, corners = map(torch.from_numpy, found)
    dets, keep = batched_nms(corners, scores, labels, dict(type='nms', iou_threshold=0.5))
    assert 5 < len(keep) < 200
    np.testing.assert_array_equal(kept.scores, dets[:limit, 4])
    np.testing.assert_array_equal(kept.boxes, dets[:limit, :4])
    np.testing.assert_array_equal(kept.labels, labels[keep][:limit])


def test_each_level_gives_its_best_pairs_of_box_and_class():
    scores = np.array([[0.9, 0.3], [0.8, 0.7], [0.2, 0.95], [0.05, 0.6]])
    apart = np.array([[20 * i, 0, 20 * i + 9, 9] for i in range(4)], 'f4')
    found = selection(candidates=2, levels=(2, 2))(scores, apart)
    assert found.scores.tolist() == [0.95, 0.9, 0.8, 0.6]
    assert found.labels.tolist() == [1, 0, 0, 1]
    assert found.boxes[:, 0].tolist() == [40, 0, 20, 60]
    assert selection(score_threshold=0.92, levels=(4,))(scores, apart).scores.tolist() == [0.95]


def test_boxes_without_an_area_are_no_detections():
    flat = np.array([[0, 0, 9, 0], [0, 0, 0, 9], [0, 0, 9, 9]], 'f4')
    found = selection(levels=(3,))(np.array([[0.9], [0.8], [0.7]]), flat)
    assert found.scores.tolist() == [0.7]


def test_nothing_found_is_no_boxes():
    found = selection()(np.zeros((6, 3), 'f4'), boxes(6))
    assert found.scores.shape == found.labels.shape == (0,) and found.boxes.shape == (0, 4)


def test_overlap():
    square = np.array([[0, 0, 2, 2]], 'f4')
    others = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1]], 'f4')
    np.testing.assert_allclose(iou(square, others), [[1, 1 / 3, 0, 0]])


def test_classes_are_told_best_first():
    found = best_classes(np.log([0.1, 0.5, 0.05, 0.2, 0.05, 0.06, 0.04]))
    assert found.labels.tolist() == [1, 3, 0, 5, 2]
    np.testing.assert_allclose(found.scores, [0.5, 0.2, 0.1, 0.06, 0.05])
    assert found.above(0.3) is found


def test_what_lies_behind_the_count_is_no_detection():
    outputs = [np.array([1, 0]), np.ones((2, 3, 4)), np.ones((2, 3)), np.ones((2, 3), int)]
    assert [len(found.scores) for found in detections(outputs)] == [1, 0]


def test_boxes_come_back_to_pixels_of_the_image():
    found = Findings(np.array([0.9]), np.array([0]), np.array([[10, 20, 120, 130]], 'f4'))
    (box,) = found.unscaled(scale=(2.0, 4.0), content=(100, 110)).boxes
    assert box.tolist() == [5, 5, 55, 25]
    assert found.above(0.95).scores.size == 0
