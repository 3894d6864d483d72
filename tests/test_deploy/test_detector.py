import copy

import pytest
import torch
from mmengine.config import ConfigDict

from prunet_mm.deploy.agreement import export_detector, matches, mmdet_boxes, mmdet_finds
from prunet_mm.deploy.detector import build_detector, model_of, require_supported
from prunet_mm.deploy.formats import FORMATS
from prunet_mm.engine.cli import load_config
from prunet_mm.errors import ConfigError, PrunetError, SpecError
from prunet_mm.inference.reading import Findings

RETINANET, EFFICIENTDET = 'retinanet_prunet_digits', 'efficientdet_prunet_digits'
SIZE = 64


@pytest.fixture
def build(root, spread_scores):
    """Build a detector whose scores are far apart, in one of its forms."""

    def build(name=RETINANET, output='detections', **test_cfg):
        torch.manual_seed(0)
        cfg = load_config(root / f'configs/det/{name}.py')
        cfg.model.test_cfg.update(test_cfg)
        network = build_detector(cfg, output, size=[SIZE])
        spread_scores(network.detector, SIZE)
        return network

    return build


def images(batch=2):
    return torch.randn(batch, 3, SIZE, SIZE)


@torch.no_grad()
@pytest.mark.parametrize('name', [RETINANET, EFFICIENTDET])
def test_boxes_and_scores_of_all_anchors_are_mmdet_s(build, name):
    network, x = build(name, 'raw'), images()
    for ours, theirs in zip(network.module(x), mmdet_boxes(network, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('name', [RETINANET, EFFICIENTDET])
@pytest.mark.parametrize(
    'test_cfg',
    [
        dict(),
        dict(nms_pre=20),  # fewer than there are anchors
        dict(max_per_img=5),
        dict(score_thr=0.5),
        dict(nms=dict(type='nms', iou_threshold=0.2)),
    ],
)
def test_what_is_selected_of_the_raw_output_and_of_candidates_is_what_mmdet_finds(
    build, name, test_cfg
):
    test_cfg = ConfigDict(test_cfg)
    raw, candidates, x = build(name, 'raw', **test_cfg), build(name, **test_cfg), images()
    selection = raw.usage.selection
    for theirs, outputs, boxes, scores, labels in zip(
        mmdet_finds(raw, x),
        zip(*raw.module(x), strict=True),
        *candidates.module(x),
        strict=True,
    ):
        assert len(theirs.scores) > 3
        of_raw = selection(*(y.numpy() for y in outputs))
        passing = scores > selection.score_threshold
        of_candidates = selection.suppress(
            Findings(*(y[passing].numpy() for y in (scores, labels, boxes)))
        )
        for ours in (of_raw, of_candidates):
            assert len(ours.scores) == len(theirs.scores) == len(matches(theirs, ours))


def test_a_file_that_finds_something_else_is_not_written(build, tmp_path, monkeypatch):
    network = build(RETINANET, 'raw')
    form = FORMATS['torchscript']
    (runtime,) = form.runtimes
    image = torch.randint(256, (SIZE, SIZE, 3), dtype=torch.uint8).numpy()

    def broken(change):
        def load(data):
            call = runtime.load(data)
            return lambda x: change(*call(x))

        return form._replace(runtimes=(runtime._replace(load=load),))

    path = tmp_path / 'detector.pt'
    assert export_detector(network, 'torchscript', path, [image])[0].boxes > 3
    path.unlink()
    for change, words in (
        (lambda scores, boxes: [scores, boxes + 0.1], "'boxes' is off by"),
        (lambda scores, boxes: [scores, boxes[:, :9]], 'the outputs have shapes'),
    ):
        monkeypatch.setitem(FORMATS, 'torchscript', broken(change))
        with pytest.raises(PrunetError, match=words):
            export_detector(network, 'torchscript', path, [image])
        assert not path.exists()


def test_boxes_that_are_lost_or_invented_are_found_out(build, tmp_path):
    from prunet_mm.deploy.agreement import _agreement

    network = build()
    (found,) = mmdet_finds(network, images(1))
    best = Findings(*(values[1:] for values in found))
    for wanted, ours, words in ((found, best, 'lacks a box'), (best, found, 'adds a box')):
        with pytest.raises(PrunetError, match=f'x.onnx was not written: .* {words} of class'):
            _agreement('a runtime', [wanted], [ours], network, 'x.onnx')
    same = _agreement('a runtime', [found], [found], network, 'x.onnx')
    assert (same.boxes, same.score_error) == (len(found.scores), 0)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(test_cfg=dict(nms=dict(type='soft_nms', iou_threshold=0.5))), 'model.test_cfg.nms '),
        (dict(test_cfg=dict(nms=dict(class_agnostic=True))), 'model.test_cfg.nms '),
        (dict(test_cfg=dict(min_bbox_size=3)), 'model.test_cfg.min_bbox_size '),
        (dict(test_cfg=dict(nms_pre=-1)), 'model.test_cfg.nms_pre '),
        (dict(bbox_head=dict(bbox_coder=dict(clip_border=False))), 'bbox_coder.clip_border '),
        (
            dict(type='ATSS', bbox_head=dict(type='ATSSHead', anchor_generator=dict(ratios=[1.0]))),
            'ATSS with ATSSHead cannot be exported as a whole, only RetinaNet .* and EfficientDet',
        ),
    ],
)
def test_other_detectors_are_refused_with_what_is_supported(root, change, words):
    cfg = copy.deepcopy(load_config(root / f'configs/det/{RETINANET}.py'))
    cfg.merge_from_dict(dict(model=change))
    with pytest.raises(ConfigError, match=words):
        require_supported(model_of(cfg), cfg)


def test_images_that_are_too_small_are_refused(root):
    cfg = load_config(root / f'configs/det/{RETINANET}.py')
    with pytest.raises(SpecError, match='images of 1 pixels'):
        build_detector(cfg, 'raw', size=[1])
