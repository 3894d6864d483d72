"""Networks of timm, as specs and as classifiers of ours: the same parameters, the same outputs."""

import math

import pytest
import torch

from prunet_mm.models.timm_weights import build_classifier, difference, in_our_names
from prunet_mm.spec import NetworkSpec
from prunet_mm.spec.timm import build

timm = pytest.importorskip('timm')

# Resolutions that make maps of odd and even sizes, since 'same' padding differs there.
NETWORKS = {
    **dict.fromkeys(['mobilenetv2_050', 'mobilenetv2_100', 'mobilenetv2_140'], 64),
    **dict.fromkeys(['mobilenetv3_large_100', 'mobilenetv3_small_100'], 64),
    **dict.fromkeys(['tf_mobilenetv3_large_100', 'tf_mobilenetv3_small_minimal_100'], 70),
    **dict.fromkeys(['mnasnet_100', 'mnasnet_small', 'semnasnet_100'], 64),
    **{f'efficientnet_b{size}': 64 for size in range(4)},
    **{f'tf_efficientnet_b{size}': 70 for size in range(4)},
    **{f'efficientnet_lite{size}': 64 for size in range(3)},
    **{f'tf_efficientnet_lite{size}': 70 for size in range(3)},
    **dict(efficientnet_es=64, tf_efficientnet_es=70, tf_efficientnetv2_b0=70),
    **dict(efficientnetv2_s=32, tf_efficientnetv2_s=38, fbnetc_100=64),
    # of the same builder: an activation behind the projection, no convolution in the tail, one
    # behind the pool without a bias, 'cn' blocks of 1 x 1, SE in the first block, 300 px, squash
    **dict(mobilenetv1_100=64, mobilenetv1_100h=64, lcnet_050=64, fbnetv3_b=64, tinynet_e=64),
    **dict(mobilenet_edgetpu_100=64, spnasnet_100=64, hardcorenas_a=64, mobilenetv3_rw=64),
    **dict(efficientnetv2_rw_t=32, efficientnet_b1_pruned=64, test_efficientnet=64),
}


def randomised(name):
    """timm's network with weights *and* statistics of norms that all matter, from a fixed seed."""
    model = build(name).to_empty(device='cpu')
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if key.endswith('num_batches_tracked'):
            value.zero_()
        elif value.ndim > 1:
            deviation = math.sqrt(2 / value[0].numel())
            value.normal_(0, deviation, generator=generator)
        elif key.endswith('running_var') or (key.endswith('weight') and value.ndim == 1):
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.mark.parametrize('name', NETWORKS)
def test_outputs_and_parameters_are_timms(name):
    model = randomised(name)
    spec = NetworkSpec.from_timm(name)
    ours = build_classifier(spec, in_our_names(spec, model.state_dict()))
    params = sum(p.numel() for p in model.parameters())
    assert spec.params() == sum(p.numel() for p in ours.parameters()) == params
    images = torch.randn(2, 3, NETWORKS[name], NETWORKS[name] + 1)
    error = difference(model, ours, images)
    print(f'{name} {params} {error:.1e}')
    assert error < 1e-5
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    assert NetworkSpec.from_timm(model) == spec
