"""Gradients averaged over processes whose parameters need not all have one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce, all_reduce_params, get_comm_device
from torch import nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes, that of a process without one counting as 0.

    What has a gradient nowhere keeps none, as in one process: an optimiser leaves it as it is.
    There is no wrapper of torch, since parameters come and go, which ``DistributedDataParallel``
    forbids.

    Args:
        parameters: The same in every process, in the same order.
    """
    parameters = list(parameters)
    there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    anywhere = there.to(get_comm_device())
    all_reduce(anywhere, op='max')
    used = [p for p, flag in zip(parameters, anywhere.tolist(), strict=True) if flag]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    all_reduce_params([p.grad for p in used], op='mean')
