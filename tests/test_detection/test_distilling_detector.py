"""A detector that learns from the maps of a trained backbone."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from prunet_mm.engine import cli
from prunet_mm.errors import ConfigError
from prunet_mm.models.unexplained import unexplained


@pytest.fixture
def config(root, tmp_path):
    """A trained detector's config, the trained one as teacher."""
    model = cli.load_config(root / 'configs/det/retinanet_prunet_digits.py').model
    init_default_scope('mmdet')
    torch.manual_seed(0)
    weights = MODELS.build(model).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'trained.pth')
    start = dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth'), prefix='backbone.')
    teacher = dict(model.backbone, init_cfg=start)
    return dict(model, type='DistillingDetector', detector='RetinaNet', teacher=teacher)


@pytest.fixture
def build(config):
    def build(**changes):
        torch.manual_seed(1)
        model = MODELS.build(copy.deepcopy(config) | changes)
        model.init_weights()
        return model.train()

    return build


@pytest.fixture
def batch():
    torch.manual_seed(2)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), scale_factor=1))
    boxes = torch.tensor([[6.0, 12.0, 38.0, 44.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([3]))
    return torch.randn(2, 3, 64, 64), [sample, copy.deepcopy(sample)]


def test_the_loss_is_the_detectors_and_what_its_maps_leave_unexplained(build, batch):
    model = build(distill_weight=2.0)
    seen = []
    model.backbone.register_forward_hook(lambda _, __, maps: seen.append(maps))
    losses = model.loss(*batch)
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_distill'}
    with torch.no_grad():
        pairs = zip(seen[0], model.teacher(batch[0]), strict=True)
        shares = [unexplained(found, wanted) for found, wanted in pairs]
    assert float(losses['loss_distill']) == pytest.approx(2 * float(sum(shares)) / len(shares))
    losses['loss_distill'].backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.neck.parameters())
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_a_student_that_is_its_teacher_has_nothing_to_learn(build, batch):
    model = build()
    model.backbone.load_state_dict(model.teacher.state_dict())
    assert float(model.eval().loss(*batch)['loss_distill'].detach()) < 1e-10
    model.train()
    assert not model.teacher.training


def test_checkpoints_are_the_detectors_and_copies_have_the_same_teacher(build, config):
    plain = {k: v for k, v in config.items() if k not in ('detector', 'teacher')}
    detector = MODELS.build(dict(plain, type='RetinaNet'))
    model = build()
    assert isinstance(model, type(detector))
    detector.load_state_dict(model.state_dict())
    assert copy.deepcopy(model).teacher is model.teacher


def test_what_cannot_teach_is_refused_in_a_sentence(build, config, batch):
    with pytest.raises(ConfigError, match="detector is 'FPN', expected a detector of mmdet"):
        build(detector='FPN')
    with pytest.raises(ConfigError, match='teacher cannot be made .*nowhere.pth.*model.teacher'):
        build(
            teacher=config['teacher']
            | dict(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))
        )
    with pytest.raises(ConfigError, match='have to be the same: check out_indices'):
        build(teacher=config['teacher'] | dict(out_indices=(3, 4))).loss(*batch)
