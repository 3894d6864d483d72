"""What a spec cannot say of timm's networks is refused by the name of the module."""

import pytest

from prunet_mm.errors import SpecError
from prunet_mm.spec import NetworkSpec
from prunet_mm.spec.timm import build

timm = pytest.importorskip('timm')

REFUSED = {
    'mixnet_s': 'mixnet_s: blocks.1.0.conv_pw is a MixedConv2d',
    'efficientnet_cc_b0_4e': 'blocks.4.0 is a CondConvResidual',
    'mobilenetv4_conv_small': 'blocks.2.0 is a UniversalInvertedResidual',
    'efficientnet_blur_b0': 'blocks.1.0.aa is a BlurPool2d',
    'mobilenet_edgetpu_v2_xs': 'groups=',
    'efficientnet_b0_gn': 'bn1 is a GroupNormAct',
    'efficientnet_x_b3': 'blocks.0.0.conv_s2d is a Conv2dSame',
    'gc_efficientnetv2_rw_t': 'se is a GlobalContext',
    'rexnet_100': 'rexnet_100 is a RexNet, which a NetworkSpec cannot express',
    'resnet18': 'resnet18 is a ResNet, which',
    'efficientnet_b11': 'has no network of this name; near ones are efficientnet_b',
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_said_is_refused_by_name(name):
    with pytest.raises(SpecError) as error:
        NetworkSpec.from_timm(name)
    assert REFUSED[name] in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (dict(num_classes=0), 'has no classifier'),
        (dict(global_pool='max'), 'global_pool is a SelectAdaptivePool2d'),
        (dict(output_stride=16), 'dilation=(2, 2)'),
        (dict(act_layer='gelu'), 'bn1.act is a GELU'),
        (dict(se_layer='eca'), 'blocks.0.0.se is a EcaModule'),
    ],
)
def test_options_of_timm_that_cannot_be_said(options, sentence):
    import torch

    with torch.device('meta'):
        model = timm.create_model('efficientnet_b0', **options)
    with pytest.raises(SpecError) as error:
        NetworkSpec.from_timm(model)
    assert sentence in str(error.value)


def test_norms_of_several_eps_are_refused():
    model = build('mobilenetv2_100')
    model.blocks[1][0].bn1.eps = 1e-2
    with pytest.raises(SpecError, match='several eps'):
        NetworkSpec.from_timm(model)


def test_options_of_timm_that_can_be_said():
    import torch

    with torch.device('meta'):
        model = timm.create_model('mobilenetv2_100', num_classes=7, in_chans=1, drop_rate=0.3)
    spec = NetworkSpec.from_timm(model)
    assert (spec.tail.num_classes, spec.tail.dropout, spec.in_channels) == (7, 0.3, 1)
    assert spec.preprocessing is None  # timm's is of three channels


@pytest.mark.parametrize(
    ('name', 'resolution', 'crop', 'squash', 'mean'),
    [
        ('tf_efficientnet_lite0', 224, 0.875, False, 127.5),
        ('efficientnet_lite2', 260, 0.89, False, 123.675),
        ('tf_efficientnetv2_m', 384, 1.0, True, 127.5),
    ],
)
def test_preprocessing_is_timms(name, resolution, crop, squash, mean):
    spec = NetworkSpec.from_timm(name)
    images = spec.preprocessing
    assert (spec.resolution, images.crop, images.squash) == (resolution, crop, squash)
    assert images.mean[0] == mean
    assert len(images.std) == 3
    assert images.interpolation == 'bicubic'
    assert spec.provenance['model'].startswith(name)
