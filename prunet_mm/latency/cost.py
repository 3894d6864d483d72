"""What a model of any origin holds and computes: parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(model: nn.Module) -> int:
    """Learned parameters, those of BatchNorms included; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of one image: convolutions, linear layers, matrix products.

    Counted as torch runs them, without computing anything where the model allows that.

    Args:
        model: In eval mode; stays as it is.
        shape: (C, H, W) of the image.
    """
    try:
        return _count(copy.deepcopy(model).to('meta'), torch.empty(1, *shape, device='meta'))
    except Exception:  # it makes tensors on the CPU, or looks at values
        return _count(model, torch.randn(1, *shape))


@torch.no_grad()
def _count(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2
