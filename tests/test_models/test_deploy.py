import copy

import pytest
import timm
import torch
from torch import nn

from prunet_mm.models.deploy import fold_norms


class ShiftedNorm(nn.BatchNorm2d):
    """Does something of its own behind the norm."""

    def forward(self, x):
        return super().forward(x) + 1


def settled(module):
    """With norms that have seen something."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.eval()


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_b0', 'regnetx_002'])
def test_timms_networks_stay_what_they_are(name):
    """Some have norms that include the activation."""
    model = settled(timm.create_model(name, num_classes=4))
    folded = fold_norms(copy.deepcopy(model))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(module.training for module in folded.modules())


def test_a_norm_that_does_something_else_as_well_stays():
    model = settled(nn.Sequential(nn.Conv2d(3, 4, 1), ShiftedNorm(4)))
    folded = fold_norms(copy.deepcopy(model))
    x = torch.randn(1, 3, 4, 4)
    assert isinstance(folded[1], ShiftedNorm)
    torch.testing.assert_close(folded(x), model(x))
