import os

import mmdet
import pytest
import torch
from torch import nn

from prunet_mm.comparing.targets import load_targets
from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.spec import load_zoo
from prunet_mm.timing.agreement import tensors

CONFIGS = os.path.join(os.path.dirname(mmdet.__file__), '.mim', 'configs')
DETECTOR = os.path.join(CONFIGS, 'yolox', 'yolox_tiny_8xb8-300e_coco.py')


def load_target(*args, **options):
    return load_targets(*args, **options)[0]


def runs(subject) -> torch.Size:
    """The shape of what it makes of two images, without norms."""
    assert not any(isinstance(module, nn.BatchNorm2d) for module in subject.model.modules())
    assert not subject.model.training
    with torch.no_grad():
        *_, last = tensors(subject.model(torch.randn(2, *subject.shape)))
    return last.shape


def test_a_network_of_the_zoo():
    spec, subject = load_zoo('prunet_p1'), load_target('prunet_p1', size=(64, 64))
    assert (subject.name, subject.shape) == ('prunet_p1', (3, 64, 64))
    assert subject.params == spec.params()
    assert subject.macs == subject.spec.macs() < spec.macs()
    assert runs(subject) == (2, 1000)


def test_a_shipped_config_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = load_target('cls/prunet_digits')
    assert (named.name, named.shape) == ('prunet_digits', (1, 8, 8))


def test_the_backbone_alone_has_no_tail():
    whole, subject = load_zoo('prunet_p1'), load_target('prunet_p1', 'backbone', (64, 64))
    assert subject.part == 'backbone'
    assert subject.params < whole.params()
    assert runs(subject) == (2, whole.layers[-1].out_channels, 1, 1)


def test_images_that_are_not_square_are_in_no_table():
    subject = load_target('prunet_p1', size=(32, 64))
    assert subject.spec is None
    assert runs(subject) == (2, 1000)


@pytest.mark.parametrize('text', ['timm:mobilenetv3_small_050', 'mobilenetv3_small_050'])
def test_a_model_of_timm(text):
    subject = load_target(text, size=(64, 64))
    assert (subject.name, subject.params) == ('mobilenetv3_small_050', 1_593_224)
    assert runs(subject) == (2, 1000)


def test_the_backbone_of_a_model_of_timm():
    subject = load_target('timm:resnet18', 'backbone', (64, 64))
    assert runs(subject) == (2, 512, 2, 2)


@pytest.mark.parametrize('prefix', ['', 'mmpretrain:'])
def test_a_model_of_mmpretrain(prefix):
    subject = load_target(f'{prefix}mobilenet-v2_8xb32_in1k', size=(64, 64))
    assert subject.params == 3_504_872
    assert runs(subject) == (2, 1000)


def test_a_config_of_a_classifier(root):
    subject = load_target(str(root / 'configs/cls/prunet_digits.py'))
    assert subject.shape == (1, 8, 8)
    assert runs(subject) == (2, 10)


def test_of_a_detector_the_backbone_at_the_detectors_size():
    (subject,) = load_targets(DETECTOR)
    assert (subject.part, str(subject)) == ('backbone', 'yolox_tiny_8xb8-300e_coco, backbone')
    assert subject.shape == (3, 416, 416)
    assert 0 < subject.params < 5_000_000


def test_a_model_that_folding_would_change_stays_as_it_is(tmp_path, monkeypatch):
    """Its modules were made in another order than the data takes."""
    import timm

    class Crossed(nn.Module):
        pretrained_cfg = dict(input_size=(3, 8, 8))

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.conv(self.norm(x).relu())

    monkeypatch.setattr(timm, 'create_model', lambda name: Crossed())
    subject = load_target('timm:resnet18')
    assert isinstance(subject.model.norm, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('prunet_p9', 'no network "prunet_p9" in the zoo (gpunet_0, .*; did you mean prunet_p'),
        ('timm:resnet_18', 'timm has no model "resnet_18"; did you mean resnet'),
        ('mmpretrain:resnet18', 'mmpretrain has no model "resnet18"'),
        ('pyproject.toml', 'pyproject.toml: expected a file that ends in .py, .json'),
        ('configs/search/prunet_digits.py', 'is a search config, not one network: take the subnet'),
        ('configs/_base_/datasets/digits.py', 'there is no `model` in this config'),
    ],
)
def test_what_cannot_be_timed_is_one_sentence(text, sentence, root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(PrunetError, match=sentence.replace('(', r'\(')):
        load_target(text)


def test_a_detector_that_post_processes_in_its_own_way_is_not_timed_as_a_whole():
    with pytest.raises(ConfigError, match='YOLOX with YOLOXHead does not: leave --whole out'):
        load_targets(DETECTOR, 'model')


def test_a_size_that_the_model_does_not_take():
    with pytest.raises(ConfigError, match='vit_tiny_patch16_224: cannot be built and run: Assert'):
        load_target('vit_tiny_patch16_224', size=(100, 100))


def test_a_name_in_two_places_has_to_say_which(monkeypatch):
    import mmpretrain

    monkeypatch.setattr(mmpretrain, 'list_models', lambda: ['resnet18'])
    with pytest.raises(
        ConfigError, match='"resnet18" is in several places: say timm or mmpretrain'
    ):
        load_target('resnet18')
