"""Networks as they run when they are deployed: norms folded into convolutions, in eval mode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunet_mm.models.blocks import build_block
from prunet_mm.models.deploy import fold_norms
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


def build_deployed_block(key: BlockKey, device: str = 'cpu') -> nn.Module:
    """The block of a latency table's entry, with random weights, folded and in eval mode.

    Its outputs are of the scale of its inputs, or a bit larger, so that a chain of many blocks
    leaves the range of no dtype.
    """
    block = _block(key)
    settle_norms(block, torch.randn(2, key.in_channels, *key.size))
    if key.has_residual:
        *_, last = filter(_is_norm, block.modules())
        nn.init.constant_(last.weight, 0.5)  # else the sum of input and block doubles the variance
    return fold_norms(block).to(device)


def build_deployed_network(
    spec: NetworkSpec, device: str = 'cpu', resolution: int | None = None
) -> nn.Sequential:
    """A whole network of such blocks: maps images (N, C, H, W) to logits or features.

    Args:
        spec: What to build.
        device: 'cpu', 'cuda' or 'cuda:N'.
        resolution: Rows and columns of the images, if not the spec's.
    """
    size = resolution or spec.resolution
    network = build_network(spec)
    settle_norms(network, torch.randn(2, spec.in_channels, size, size))
    return fold_norms(network).to(device)


def build_network(spec: NetworkSpec) -> nn.Sequential:
    """The same network as it is trained, with its norms."""
    return nn.Sequential(*map(_block, spec.block_keys())).eval()


@torch.no_grad()
def settle_norms(module: nn.Module, x: Tensor) -> None:
    """Gives every BatchNorm the statistics of what it gets behind random weights.

    With those that it is made with, activations shrink from layer to layer. Then half precision
    rounds them to zero, a CPU computes with denormal numbers, and nothing that is wrong in front of
    the last bias shows in the output.

    Args:
        module: In eval mode, as which it is left.
        x: Some random inputs, (N, C, H, W).
    """
    norms = [norm for norm in module.modules() if _is_norm(norm) and norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # None: the mean of all batches
    try:
        module(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False


def random_images(spec: NetworkSpec, batch: int, device: str, count: int = 4) -> list[Tensor]:
    """``count`` batches of random images, (batch, C, H, W) each."""
    shape = batch, spec.in_channels, spec.resolution, spec.resolution
    return [x.to(device) for x in random_inputs(shape, count)]


def random_inputs(shape: Sequence[int], count: int = 4) -> list[Tensor]:
    """``count`` float32 tensors of normal random numbers, on the CPU.

    Several, so that a network does not find its input in the cache; never zeros, which some
    hardware multiplies faster or at less power.
    """
    return [torch.randn(*shape) for _ in range(count)]


def _block(key: BlockKey) -> nn.Module:
    return (Tail(key) if key.op == 'tail' else build_block(_layer(key))).eval()


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm)


def _layer(key: BlockKey) -> LayerSpec:
    fields = {
        name: value for name, value in key._asdict().items() if name in LayerSpec.model_fields
    }
    return LayerSpec(**fields, stage=1)
