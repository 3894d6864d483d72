"""Networks as they run when they are deployed: norms folded into convolutions, in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunet_mm.models.blocks import build_block
from prunet_mm.models.deploy import fold_norms
from prunet_mm.models.statistics import recalibrate
from prunet_mm.models.tail import PRUNetTail
from prunet_mm.spec import BlockKey, LayerSpec, NetworkSpec


class Tail(nn.Module):
    """What a `TailSpec` describes: `PRUNetTail` and a linear layer."""

    def __init__(self, key: BlockKey) -> None:
        super().__init__()
        features = dict(features=key.features, features_bias=key.features_bias)
        self.neck = PRUNetTail(key.in_channels, key.hidden, key.act, **features)
        self.linear = nn.Linear(self.neck.out_channels, key.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, in, H, W) to logits (N, classes)."""
        return self.linear(self.neck(x)[0])


def deployed_block(key: BlockKey) -> nn.Module:
    """The block of a latency table's entry, with random weights, folded and in eval mode.

    Its outputs are of the scale of its inputs, or a bit larger, so that a chain of many blocks
    leaves the range of no dtype.
    """
    block = _block(key)
    settle_norms(block, torch.randn(2, key.in_channels, *key.size))
    if key.has_residual:
        *_, last = (module for module in block.modules() if isinstance(module, _BatchNorm))
        nn.init.constant_(last.weight, 0.5)  # else the sum of input and block doubles the variance
    return fold_norms(block)


def deployed_network(spec: NetworkSpec) -> nn.Sequential:
    """A whole network of such blocks: maps images (N, C, H, W) to logits or features."""
    network = chain_of_blocks(spec)
    settle_norms(network, torch.randn(2, spec.in_channels, spec.resolution, spec.resolution))
    return fold_norms(network)


def chain_of_blocks(spec: NetworkSpec) -> nn.Sequential:
    """The same network as it is trained, with its norms, in eval mode."""
    return nn.Sequential(*map(_block, spec.block_keys())).eval()


def settle_norms(module: nn.Module, x: Tensor) -> None:
    """Gives every BatchNorm the statistics of what it gets behind random weights.

    With those that it is made with, activations shrink from layer to layer. Then half precision
    rounds them to zero, a CPU computes with denormal numbers, and nothing that is wrong in front of
    the last bias shows in the output.

    Args:
        module: Is in eval mode from then on.
        x: Some random inputs, (N, C, H, W).
    """
    module.eval()
    recalibrate(module, [x], module)


def _block(key: BlockKey) -> nn.Module:
    return (Tail(key) if key.op == 'tail' else build_block(_layer(key))).eval()


def _layer(key: BlockKey) -> LayerSpec:
    fields = {
        name: value for name, value in key._asdict().items() if name in LayerSpec.model_fields
    }
    return LayerSpec(**fields, stage=1)
