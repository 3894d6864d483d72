import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from prunet_mm.engine import bf16_optim_wrapper
from prunet_mm.engine.bf16_optim_wrapper import Bf16OptimWrapper
from prunet_mm.errors import ConfigError


@pytest.fixture
def build(monkeypatch):
    def build(able, model):
        monkeypatch.setattr(bf16_optim_wrapper, 'get_device', lambda: 'cpu')
        monkeypatch.setattr(bf16_optim_wrapper, 'computes_bf16', lambda device: able)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return OPTIM_WRAPPERS.build(dict(type='Bf16OptimWrapper', optimizer=optimizer))

    return build


def test_layers_compute_in_bfloat16_and_weights_stay_float32(build):
    model = nn.Conv2d(1, 2, 3)
    wrapper, before = build(True, model), model.weight.detach().clone()
    assert isinstance(wrapper, Bf16OptimWrapper)
    with wrapper.optim_context(model):
        out = model(torch.randn(2, 1, 5, 5))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().mean())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_a_device_that_would_emulate_it_is_refused(build):
    with pytest.raises(ConfigError, match='this cpu does not compute in it'):
        build(False, nn.Linear(1, 1))
