import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.nn import functional as F

from prunet_mm.errors import ConfigError
from prunet_mm.registry import register_on_lookup

CLASSES = 5


def classifier(hidden, num_classes=CLASSES, in_channels=3, **settings):
    """A tiny network with BatchNorms, as a config."""
    first = dict(in_channels=in_channels, out_channels=8, kernel=3, stride=1, act='relu', stage=0)
    block = dict(
        op='irb',
        in_channels=8,
        out_channels=16,
        kernel=3,
        stride=2,
        hidden=hidden,
        act='relu',
        stage=1,
    )
    arch = dict(
        name='tiny',
        resolution=8,
        in_channels=in_channels,
        stem=[dict(op='conv', **first)],
        layers=[block],
    )
    return (
        dict(
            type='ImageClassifier',
            backbone=dict(type='PRUNet', arch=arch),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=num_classes,
                in_channels=16,
                loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
            ),
        )
        | settings
    )


def distilled(teacher=None, **settings):
    config = classifier(hidden=8, **settings)
    return config | dict(type='DistillingClassifier', teacher=teacher or classifier(hidden=24))


@pytest.fixture
def build():
    def build(**settings):
        torch.manual_seed(0)
        model = MODELS.build(distilled(**settings))
        model.init_weights()
        return model.train()

    return build


@pytest.fixture
def batch():
    torch.manual_seed(1)
    labels = torch.randint(CLASSES, (16,))
    return torch.randn(16, 3, 8, 8), [DataSample().set_gt_label(label) for label in labels]


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_loss_is_that_of_labels_and_that_of_the_teachers_softmax(build, batch):
    images, samples = batch
    model = build(teacher_size=12, distill_weight=2.0)
    losses = model.loss(images, samples)
    assert set(losses) == {'loss_cls', 'loss_distill'}

    logits = model(images).log_softmax(1)
    large = F.interpolate(images, (12, 12), mode='bicubic', align_corners=False)
    taught = -(model.teacher(large).softmax(1) * logits).sum(1).mean()
    labels = torch.cat([sample.gt_label for sample in samples])
    smooth = F.one_hot(labels, CLASSES) * 0.9 + 0.1 / CLASSES
    torch.testing.assert_close(losses['loss_cls'], -(smooth * logits).sum(1).mean())
    torch.testing.assert_close(losses['loss_distill'], 2 * taught)
    total, log = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_cls'] + losses['loss_distill'])
    assert set(log) == {'loss', 'loss_cls', 'loss_distill'}


def test_teacher_neither_changes_nor_gets_gradients(build, batch):
    model = build()
    seen = []
    model.teacher.register_forward_hook(
        lambda module, args, out: seen.append((module.training, out.requires_grad, args[0].shape))
    )
    before, student = state(model.teacher), state(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    images, samples = batch
    for seen_again in (images, images, images.clone()):  # the same ones are shown to it once
        sum(model.train().loss(seen_again, samples).values()).backward()
        optimizer.step()
    assert seen == [(False, False, (16, 3, 8, 8))] * 2
    assert not any(module.training for module in model.teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name  # the norms' statistics, too
    assert not torch.equal(model.state_dict()['head.fc.weight'], student['head.fc.weight'])


def test_teacher_is_no_part_of_the_student(build):
    model = build()
    plain = MODELS.build(classifier(hidden=8))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [
        name for name, _ in plain.named_modules()
    ]
    plain.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(plain.state_dict(), strict=True)


def test_average_of_the_student_has_no_teacher_of_its_own(build, batch):
    model = build()
    average = ExponentialMovingAverage(model, update_buffers=True)
    assert average.module.teacher is model.teacher
    assert len(list(average.parameters())) == len(list(model.parameters()))
    before = state(model.teacher)
    average.update_parameters(model)
    average.update_parameters(model)
    assert all(torch.equal(value, before[name]) for name, value in state(model.teacher).items())


def test_both_losses_are_computed_in_full_precision_where_the_networks_are_not(build, batch):
    model = build()
    logits = []
    model.teacher.register_forward_hook(lambda module, args, out: logits.append(out.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*batch)
    assert logits == [torch.bfloat16]
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    expected = build().loss(*batch)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=0.02, atol=0)


@pytest.mark.parametrize('first', [True, False])
def test_teacher_goes_where_the_student_goes(first):
    model = MODELS.build(distilled())
    if first:
        model.init_weights()
    model.double().to('meta')
    found = {(p.device.type, p.dtype) for p in model.teacher.parameters()}
    assert found == {('meta', torch.float64)}


def test_teacher_is_made_and_given_its_weights_once(build, tmp_path):
    source = MODELS.build(classifier(hidden=24))
    source.init_weights()
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=source.state_dict()), path)
    teacher = classifier(hidden=24, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model = build(teacher=teacher)
    made = model.teacher
    model.init_weights()
    assert model.teacher is made
    for name, value in source.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name


def test_a_student_of_a_few_steps_answers_more_like_its_teacher(build, batch):
    images, samples = batch
    distances = {}
    for weight in (0.0, 1.0):
        model = build(distill_weight=weight)
        # a teacher that is sure of itself, and of other things than the labels
        model.teacher.head.fc.weight.mul_(300)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(30):
            optimizer.zero_grad()
            sum(model.loss(images, samples).values()).backward()
            optimizer.step()
        with torch.no_grad():
            target = model.teacher(images).softmax(1)
            distances[weight] = F.cross_entropy(model(images), target).item()
    assert distances[1.0] < 0.7 * distances[0.0]


def test_a_student_that_is_only_tested_needs_no_teacher():
    model = MODELS.build(distilled(teacher=dict(type='NoSuchTeacher'))).eval()
    (sample, _) = model.predict(torch.rand(2, 3, 8, 8))
    assert sample.pred_score.shape == (CLASSES,)


def test_timm_teachers_keep_the_weights_that_timm_gave_them(build, tmp_path):
    # A transformer, since those have an `init_weights` that would draw new ones.
    timm = pytest.importorskip('timm')
    source = timm.create_model('test_vit', num_classes=CLASSES)
    torch.save(source.state_dict(), tmp_path / 'teacher.pth')
    settings = dict(num_classes=CLASSES, checkpoint_path=str(tmp_path / 'teacher.pth'))
    model = build(teacher=dict(type='TimmClassifier', model_name='test_vit', **settings))
    for name, value in source.state_dict().items():
        assert torch.equal(model.teacher.model.state_dict()[name], value), name


def train_digits(root, work_dir, max_epochs, resume=False):
    """Train on a few digits with averaged weights; what happens depends on nothing random."""
    cfg = Config.fromfile(root / 'configs/cls/prunet_digits.py')
    teacher = classifier(hidden=24, num_classes=10, in_channels=1)
    cfg.model = distilled(teacher=teacher, num_classes=10, in_channels=1)
    cfg.train_dataloader.dataset.update(indices=128, pipeline=[dict(type='PackInputs')])
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg.max_epochs = max_epochs
    cfg.param_scheduler = None
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
    cfg.default_hooks.checkpoint.interval = 1
    cfg.visualizer = cfg.vis_backends = None
    cfg.work_dir, cfg.resume = str(work_dir), resume
    cfg.experiment_name = f'{work_dir.name}-{max_epochs}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_trains_with_averaged_weights_and_resumes_exactly(root, tmp_path):
    whole = train_digits(root, tmp_path / 'whole', max_epochs=2)
    train_digits(root, tmp_path / 'parts', max_epochs=1)
    resumed = train_digits(root, tmp_path / 'parts', max_epochs=2, resume=True)
    assert (resumed.epoch, resumed.iter) == (2, 4)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    saved = torch.load(tmp_path / 'parts/epoch_2.pth', weights_only=False)
    plain = MODELS.build(classifier(hidden=8, num_classes=10, in_channels=1))
    plain.load_state_dict(saved['state_dict'], strict=True)
    averaged = torch.load(tmp_path / 'whole/epoch_2.pth', weights_only=False)['ema_state_dict']
    assert averaged.keys() == saved['ema_state_dict'].keys()
    assert all(torch.equal(value, saved['ema_state_dict'][k]) for k, value in averaged.items())


@pytest.mark.parametrize(
    ('teacher', 'sentence'),
    [
        (classifier(hidden=24, num_classes=7), 'teacher knows 7 classes and the student 5'),
        (dict(type='NoSuchTeacher'), 'NoSuchTeacher is not in the .*; check model.teacher'),
        (
            classifier(hidden=24, init_cfg=dict(type='Pretrained', checkpoint='missing.pth')),
            'teacher cannot be made .*missing.pth',
        ),
        (
            dict(type='TimmClassifier', model_name='no_such_net'),
            r'Unknown model \(no_such_net\)\); check model.teacher',
        ),
        (
            dict(type='TimmClassifier', model_name='test_efficientnet', num_classes=7),
            'teacher knows 7 classes and the student 5',
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_one_sentence_before_training(teacher, sentence):
    model = MODELS.build(distilled(teacher=teacher))
    with pytest.raises(ConfigError, match=sentence) as error:
        model.init_weights()
    assert '\n' not in str(error.value)


def test_missing_timm_is_one_sentence(monkeypatch):
    for name in ('timm', 'timm.models'):
        monkeypatch.setitem(sys.modules, name, None)
    model = MODELS.build(distilled(teacher=dict(type='TimmClassifier', model_name='resnet18')))
    with pytest.raises(ConfigError, match='pip install timm", or train without a teacher'):
        model.init_weights()


def test_a_teacher_size_that_is_none_is_refused():
    with pytest.raises(ConfigError, match='teacher_size is 0'):
        MODELS.build(distilled(teacher_size=0))


def test_the_name_resolves_while_importing_the_package_stays_light(run_python):
    code = """
import sys
import mmengine, prunet_mm
from mmpretrain.registry import MODELS
assert 'prunet_mm.models' in sys.modules and 'mmpretrain.models' not in sys.modules
print(MODELS.get('DistillingClassifier').__name__)
"""
    result = run_python('-c', code)
    assert result.stdout.strip() == 'DistillingClassifier', result.stderr


def test_a_module_for_lookups_comes_at_once_where_there_was_one_before(tmp_path, monkeypatch):
    assert MODELS.get('ImageClassifier')
    (tmp_path / 'registered_late.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    register_on_lookup('registered_late')
    assert sys.modules.pop('registered_late')
