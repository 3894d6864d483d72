"""Detection configs for a CPU: they learn and predict, also without annotations."""

import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import bbox_overlaps
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from prunet_mm.datasets.digit_scenes import compose_scenes
from prunet_mm.detection.check import require_channels_fit

DIGITS = ['retinanet_prunet_digits', 'efficientdet_prunet_digits']
CELLS = ['retinanet_prunet_bccd', 'retinanet_r18_bccd']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')
    torch.manual_seed(0)


@pytest.fixture
def load(root):
    return lambda name: Config.fromfile(root / f'configs/det/{name}.py')


def step_input(samples):
    """Images of (H, W, 3) with boxes (left, top, width, height) and labels, as a loader's batch."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    images, data_samples = [], []
    for number, (image, boxes, labels) in enumerate(samples):
        size = image.shape[:2]
        sample = DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), img_id=number)
        )
        boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.as_tensor(labels).long())
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        data_samples.append(sample)
    return dict(inputs=images, data_samples=data_samples)


@pytest.mark.parametrize('name', DIGITS)
def test_two_scenes_are_learnt_and_found_again(load, name):
    cfg = load(name)
    cfg.model.test_cfg.score_thr = 0.3
    model = MODELS.build(cfg.model)
    require_channels_fit(model)
    model.init_weights()
    data = step_input(compose_scenes('train', 2, 128, seed=5))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    losses = []
    for step in range(80):
        for group in wrapper.optimizer.param_groups if step == 50 else ():
            group['lr'] *= 0.1  # boxes come to rest, on whatever CPU
        losses.append(float(model.train_step(data, wrapper)['loss']))
    assert losses[-1] < 0.05 * losses[0]

    for norm in model.modules():  # their statistics lag behind
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(**model.data_preprocessor(data, True))
        found = model.eval().test_step(data)
    for sample in found:
        truth, pred = sample.gt_instances, sample.pred_instances
        overlaps = bbox_overlaps(truth.bboxes.numpy(), pred.bboxes.numpy())
        best = overlaps.argmax(1)
        assert (overlaps.max(1) > 0.7).all()
        assert pred.labels[best].tolist() == truth.labels.tolist()


@pytest.mark.parametrize('name', DIGITS + CELLS)
def test_batches_without_annotations_train_to_finite_weights(load, name):
    cfg = load(name)
    model = MODELS.build(cfg.model)
    model.init_weights()
    image = np.random.RandomState(0).randint(256, size=(128, 128, 3)).astype(np.uint8)
    empty, full = (image, [], []), (image, [[10, 20, 40, 50]], [1])
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    for samples in ([empty, empty], [empty, full], [empty, empty]):
        logs = model.train_step(step_input(samples), wrapper)
        assert all(value.isfinite() for value in logs.values())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        assert len(model.eval().test_step(step_input([empty]))) == 1


def test_scenes_are_normalised_by_their_mean_and_deviation(load):
    pixels = np.stack([scene.image for scene in compose_scenes('train', 300, 128, seed=0)])
    means = load(DIGITS[0]).model.data_preprocessor
    assert means['mean'][::-1] == pytest.approx(pixels.mean((0, 1, 2)).tolist(), abs=4)
    assert means['std'][::-1] == pytest.approx(pixels.std((0, 1, 2)).tolist(), abs=4)


@pytest.mark.parametrize('names', [DIGITS, CELLS])
def test_configs_that_are_compared_share_data_and_schedule(load, names):
    first, second = (load(name).to_dict() for name in names)
    models = [cfg.pop('model') for cfg in (first, second)]
    assert first == second
    if names == CELLS:
        for model in models:
            del model['backbone'], model['neck']['in_channels']
        assert models[0] == models[1]
