import pytest
import torch
from torch import nn

from prunet_mm.comparing.facts import count_macs
from prunet_mm.latency.network import chain_of_blocks
from prunet_mm.spec import load_zoo


@pytest.mark.parametrize('name', ['prunet_p0', 'gpunet_d1'])
def test_what_is_counted_is_what_the_spec_says(name):
    spec = load_zoo(name)
    assert count_macs(chain_of_blocks(spec), (3, spec.resolution, spec.resolution)) == spec.macs()


def test_a_model_that_looks_at_values_is_counted_too():
    class Clipped(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) if x.max() > 0 else x

    assert count_macs(Clipped(3, 5, 1), (3, 4, 4)) == 3 * 5 * 16


def test_counting_leaves_the_model_where_it_is():
    model = nn.Conv2d(3, 5, 1)
    count_macs(model, (3, 4, 4))
    assert model.weight.device == torch.device('cpu')
