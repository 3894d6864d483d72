"""Networks as they run when they are deployed: norms folded into convolutions, in eval mode."""

from __future__ import annotations

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn

from prunet_mm.models.blocks import build_block
from prunet_mm.models.tail import PRUNetTail
from prunet_mm.spec import BlockKey, LayerSpec, NetworkSpec


class Tail(nn.Module):
    """What a `TailSpec` describes: `PRUNetTail` and a linear layer."""

    def __init__(self, key: BlockKey) -> None:
        super().__init__()
        self.neck = PRUNetTail(key.in_channels, key.hidden, key.act, features=key.features)
        self.linear = nn.Linear(self.neck.out_channels, key.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, in, H, W) to logits (N, classes)."""
        return self.linear(self.neck(x)[0])


def build_deployed_block(key: BlockKey, device: str = 'cpu') -> nn.Module:
    """The block of a latency table's entry, with random weights, folded and in eval mode."""
    block = Tail(key) if key.op == 'tail' else build_block(_layer(key))
    return fuse_conv_bn(block.eval()).eval().to(device)


def build_deployed_network(spec: NetworkSpec, device: str = 'cpu') -> nn.Sequential:
    """A whole network of such blocks: maps images (N, C, H, W) to logits or features."""
    return nn.Sequential(*(build_deployed_block(key, device) for key in spec.block_keys()))


def random_images(spec: NetworkSpec, batch: int, device: str, count: int = 4) -> list[Tensor]:
    """``count`` batches of random images, (batch, C, H, W) each.

    Several, so that a network does not find its input in the cache; never zeros, which some
    hardware multiplies faster or at less power.
    """
    shape = batch, spec.in_channels, spec.resolution, spec.resolution
    return [torch.randn(shape, device=device) for _ in range(count)]


def _layer(key: BlockKey) -> LayerSpec:
    fields = {
        name: value for name, value in key._asdict().items() if name in LayerSpec.model_fields
    }
    return LayerSpec(**fields, stage=1)
