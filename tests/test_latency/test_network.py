import pytest
import torch
from torch import nn

from prunet_mm.latency.network import (
    build_deployed_block,
    build_deployed_network,
    random_images,
)
from prunet_mm.models.blocks import build_block
from prunet_mm.spec import BlockKey, LayerSpec, NetworkSpec

LAYER = dict(in_channels=4, out_channels=4, kernel=3, stride=1, act='relu', stage=1)


@pytest.mark.parametrize(
    'fields',
    [
        dict(op='conv'),
        dict(op='irb', hidden=8),
        dict(op='irb', hidden=8, se=2, stride=2, act='swish'),
        dict(op='fused_irb', hidden=8, kernel=5),
    ],
)
def test_a_deployed_block_computes_what_the_block_computes(fields):
    layer = LayerSpec(**(LAYER | fields))
    torch.manual_seed(0)
    block = build_block(layer).eval()
    torch.manual_seed(0)
    deployed = build_deployed_block(layer.block_key(8, 8))
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(deployed(x), block(x))


def test_norms_are_gone_and_nothing_trains():
    deployed = build_deployed_block(LayerSpec(op='irb', hidden=8, **LAYER).block_key(8, 8))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert not any(module.training for module in deployed.modules())


@pytest.mark.parametrize('channels', [0, 6])
def test_a_tail_maps_features_to_logits(channels):
    tail = build_deployed_block(BlockKey('tail', 4, 10, channels, 1, 1, 'relu', 0, 2, 2))
    assert tail(torch.randn(3, 4, 2, 2)).shape == (3, 10)


def test_a_network_maps_its_images_to_logits():
    spec = NetworkSpec.from_dict(
        dict(
            name='net',
            resolution=8,
            in_channels=1,
            stem=[dict(LAYER, op='conv', in_channels=1, stage=0)],
            layers=[dict(LAYER, op='irb', hidden=8, stride=2)],
            tail=dict(num_classes=5),
        )
    )
    images = random_images(spec, 3, 'cpu', count=2)
    assert len(images) == 2
    assert not torch.equal(*images)
    assert build_deployed_network(spec)(images[0]).shape == (3, 5)
