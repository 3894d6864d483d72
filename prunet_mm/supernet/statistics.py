"""Batch-norm statistics: left alone when they must not move, measured anew at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise with the batch's statistics, as in training, but record none of them.

    A momentum of 0 does it, rather than no running statistics at all: autograd then saves as many
    tensors as it does without this context, which activation checkpointing counts.
    """
    norms = [(norm, norm.momentum, norm.num_batches_tracked) for norm in _norms(model)]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in norms:
            norm.momentum, norm.num_batches_tracked = momentum, count


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable, forward: Callable) -> None:
    """Replace every running mean and variance by its plain average over some batches.

    Args:
        model: Its norms are in training mode meanwhile, everything else in eval mode.
        batches: What ``forward`` is called with, one after another.
        forward: Runs the model on one batch.
    """
    training = model.training
    norms = _norms(model)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for count, batch in enumerate(batches, start=1):
        for norm in norms:
            norm.momentum = 1 / count
        forward(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)
