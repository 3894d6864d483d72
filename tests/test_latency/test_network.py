import pytest
import torch
from torch import nn

from prunet_mm.latency.network import (
    chain_of_blocks,
    deployed_block,
    deployed_network,
    settle_norms,
)
from prunet_mm.spec import BlockKey, LayerSpec, NetworkSpec

LAYER = dict(in_channels=4, out_channels=4, kernel=3, stride=1, act='relu', stage=1)


def network(*layers, **fields) -> NetworkSpec:
    """A network of these layers, each a dict of what differs from `LAYER`."""
    return NetworkSpec.from_dict(
        dict(
            name='net',
            resolution=8,
            in_channels=1,
            stem=[dict(LAYER, op='conv', in_channels=1, stage=0)],
            layers=[LAYER | layer for layer in layers],
            tail=dict(num_classes=5),
        )
        | fields
    )


@pytest.mark.parametrize(
    'layer',
    [
        dict(op='conv'),
        dict(op='shortcut', kernel=1, stride=2),
        dict(op='irb', hidden=8),
        dict(op='irb', hidden=8, se=2, stride=2, act='swish'),
        dict(op='fused_irb', hidden=8, kernel=5),
    ],
)
def test_a_deployed_network_computes_what_the_network_computes(layer):
    spec = network(layer)
    torch.manual_seed(0)
    trained = chain_of_blocks(spec)
    settle_norms(trained, torch.randn(2, 1, 8, 8))
    torch.manual_seed(0)
    folded = deployed_network(spec)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(folded(x), trained(x))


def test_activations_neither_vanish_nor_explode_in_a_deep_network():
    layers = [dict(op='irb', hidden=8 * 4), dict(op='irb', hidden=8, stride=2)] * 2
    deep = network(*layers[:1] * 30, *layers, tail=None)
    x = torch.randn(2, 1, 8, 8)
    whole = deployed_network(deep)(x).std()
    for key in deep.block_keys():
        x = deployed_block(key)(x)
    assert 0.01 < whole < 100
    assert 0.01 < x.std() < 100


def test_norms_are_settled_on_what_they_get():
    norm = nn.BatchNorm2d(4, momentum=0.3)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), norm).eval()
    x = 5 + 3 * torch.randn(64, 3, 8, 8)
    settle_norms(module, x)
    y = module(x)
    assert not module.training and not norm.training and norm.momentum == 0.3
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)


def test_norms_are_gone_and_nothing_trains():
    deployed = deployed_block(LayerSpec(op='irb', hidden=8, **LAYER).block_key(8, 8))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert not any(module.training for module in deployed.modules())


@pytest.mark.parametrize('channels', [0, 6])
def test_a_tail_maps_features_to_logits(channels):
    tail = deployed_block(BlockKey('tail', 4, 10, channels, 1, 1, 'relu', 0, 2, 2))
    assert tail(torch.randn(3, 4, 2, 2)).shape == (3, 10)


def test_a_network_maps_its_images_to_logits():
    spec = network(dict(op='irb', hidden=8, stride=2))
    assert deployed_network(spec)(torch.randn(3, 1, 8, 8)).shape == (3, 5)
