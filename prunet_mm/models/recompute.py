"""What a module does for once: activations computed again, no statistics, no dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(module: nn.Module, x: Tensor, with_cp: bool, *args) -> Tensor:
    """``module(x, *args)``; with ``with_cp``, the backward pass computes its activations again.

    That saves their memory. The second pass must not record the batch's statistics again.
    """
    if not (with_cp and torch.is_grad_enabled()):
        return module(x, *args)
    return checkpoint(
        module,
        x,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), frozen_statistics(module)),
    )


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise with the batch's statistics, as in training, but record none of them.

    A momentum of 0 does it, rather than no running statistics at all: autograd then saves as many
    tensors as it does without this context, which activation checkpointing counts.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    settings = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in settings:
            norm.momentum, norm.num_batches_tracked = momentum, count


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put everything that drops at random into eval mode."""
    dropping = [
        module
        for module in model.modules()
        if module.training and isinstance(module, (nn.modules.dropout._DropoutNd, DropPath))
    ]
    for module in dropping:
        module.training = False
    try:
        yield
    finally:
        for module in dropping:
            module.training = True
