"""Batch-norm statistics, measured anew: at the end of a search, and behind random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable, forward: Callable) -> None:
    """Replace every running mean and variance by its plain average over some batches.

    Args:
        model: Its norms are in training mode meanwhile, everything else in eval mode. A norm that
            runs several times in a batch, as in a detector's head that all levels share, averages
            over all of these.
        batches: What ``forward`` is called with, one after another.
        forward: Runs the model on one batch.
    """
    training = model.training
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # which stands for the plain average
    try:
        for batch in batches:
            forward(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
        model.train(training)
