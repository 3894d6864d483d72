import copy

import pytest
import torch
from mmdet.models.dense_heads import base_dense_head
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import nn

from prunet_mm.comparing.benchmark import Benchmark
from prunet_mm.comparing.targets import load_targets
from prunet_mm.detection.post_processing import DetectorNetwork, PostProcessing, require_plain_head
from prunet_mm.engine.cli import load_config
from prunet_mm.errors import ConfigError
from prunet_mm.latency.network import settle_norms
from prunet_mm.models.deploy import fold_norms
from prunet_mm.timing import Settings
from prunet_mm.timing.agreement import disagreement
from prunet_mm.timing.engine import Protocol

RETINANET, EFFICIENTDET = 'retinanet_prunet_digits', 'efficientdet_prunet_digits'
SHAPE = 3, 64, 64
# 10 classes and 9 anchors per cell of 8 x 8, 4 x 4 and 2 x 2 maps; nms_pre is 300
CANDIDATES = 300 + 300 + 300


@pytest.fixture
def build(root):
    """Build the detector of a config, in eval mode."""

    def build(name, **test_cfg):
        torch.manual_seed(0)
        cfg = load_config(str(root / f'configs/det/{name}.py'))
        cfg.model.test_cfg.update(test_cfg)
        with DefaultScope.overwrite_default_scope('mmdet'):
            return MODELS.build(cfg.model).eval()

    return build


@pytest.fixture
def network(build):
    return DetectorNetwork(build(RETINANET))


@pytest.fixture
def handed_over(monkeypatch):
    """How many boxes get to NMS, image by image."""
    numbers, nms = [], base_dense_head.batched_nms

    def counting(boxes, *args):
        numbers.append(len(boxes))
        return nms(boxes, *args)

    monkeypatch.setattr(base_dense_head, 'batched_nms', counting)
    return numbers


def images(batch=2):
    return torch.randn(batch, *SHAPE)


@torch.no_grad()
def test_the_network_is_the_detector_without_post_processing(build):
    detector, x = build(EFFICIENTDET), images()
    scores, deltas = detector(x, mode='tensor')
    flat = DetectorNetwork(detector)(x)
    assert [y.shape for y in flat] == [y.shape for y in (*scores, *deltas)]
    assert disagreement(flat, [scores, deltas]) == 0
    assert flat[0].shape == (2, 90, 8, 8) and flat[5].shape == (2, 36, 2, 2)


@pytest.mark.parametrize(
    ('name', 'left'),
    [(RETINANET, 0), (EFFICIENTDET, 2 * 2 * 3)],  # nets x convolutions x levels
)
@torch.no_grad()
def test_norms_that_levels_have_of_their_own_behind_shared_convolutions_stay(build, name, left):
    network = DetectorNetwork(build(name))
    settle_norms(network, images(4))  # those of each level differ from then on
    folded, x = fold_norms(copy.deepcopy(network)), images()
    assert disagreement(folded(x), network(x)) < 1e-4
    norms = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == left
    assert all(name.startswith('detector.bbox_head.') for name in norms)


@torch.no_grad()
@pytest.mark.parametrize('name', [RETINANET, EFFICIENTDET])
def test_as_many_boxes_get_to_nms_as_the_config_lets_through(build, handed_over, name):
    network, x = DetectorNetwork(build(name, min_bbox_size=-1)), images()
    after = PostProcessing(network, SHAPE)
    assert after.candidates == CANDIDATES
    results = after.behind(network, network(x))(x)
    assert handed_over == [CANDIDATES] * 2
    for found in results:
        assert 0 < len(found.bboxes) <= 50  # max_per_img
        assert found.bboxes.isfinite().all()
        assert (found.bboxes >= 0).all() and (found.bboxes <= 64).all()
        assert (found.scores > 0.05).all()


@torch.no_grad()
def test_random_weights_would_let_no_box_or_nearly_all_pass(build):
    """Why scores are made up."""
    threshold = 0.05
    as_built, initialised = (DetectorNetwork(build(RETINANET)) for _ in range(2))
    initialised.detector.init_weights()
    shares = []
    for network in (as_built, initialised):
        scores = torch.cat([y.flatten() for y in network(images())[:3]]).sigmoid()
        shares.append(float((scores > threshold).float().mean()))
    assert shares[0] > 0.9
    assert shares[1] < 0.01


@torch.no_grad()
def test_what_is_post_processed_has_the_layout_of_the_network_and_is_float32(network, monkeypatch):
    given, post = [], network.detector.bbox_head.predict_by_feat

    def looking(*outputs, **kwargs):
        given.extend(y for output in outputs for y in output)
        return post(*outputs, **kwargs)

    monkeypatch.setattr(network.detector.bbox_head, 'predict_by_feat', looking)
    x = images()
    outputs = [y.to(torch.float16, memory_format=torch.channels_last) for y in network(x)]
    run = PostProcessing(network, SHAPE).behind(network, outputs)
    assert len(run(x)) == 2
    assert {y.dtype for y in given} == {torch.float32}
    assert [y.shape for y in given] == [y.shape for y in outputs]
    assert [y.stride() for y in given] == [y.stride() for y in outputs]


def test_a_whole_detector_on_several_backends(root):
    subjects = load_targets(str(root / f'configs/det/{EFFICIENTDET}.py'), 'model', SHAPE[1:])
    assert [str(subject) for subject in subjects] == [
        f'{EFFICIENTDET}, without post-processing',
        f'{EFFICIENTDET}, with post-processing',
    ]
    first, second = subjects
    assert (first.params, first.macs, first.shape) == (second.params, second.macs, SHAPE)
    bench = Benchmark(
        subjects, [Settings(backend=name) for name in ('eager', 'channels-last', 'torchscript')]
    )
    bench.run(Protocol(passes=1, min_rounds=2, precision=1e3))
    assert [job.error for job in bench.jobs] == [None] * 6
    assert all(bench.measurement.samples_ms(index) for index in range(6))


def test_other_detectors_are_refused_in_one_sentence(build):
    require_plain_head(build(RETINANET), 'ours')
    with pytest.raises(ConfigError, match='ours: .* `model.test_cfg.nms_pre` lets through'):
        require_plain_head(build(RETINANET, nms_pre=-1), 'ours')
    softmax = build(RETINANET)
    softmax.bbox_head.use_sigmoid_cls = False
    with pytest.raises(ConfigError, match='RetinaNet with RetinaHead does not: leave --whole out'):
        require_plain_head(softmax, 'ours')
