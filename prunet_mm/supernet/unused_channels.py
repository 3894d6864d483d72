"""Keeps what is out of use as it is while an optimiser steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from prunet_mm.supernet.prunode import Prunode


class UnusedChannels:
    """Shields the hidden channels beyond a Prunode's ``hi`` from weight decay and momentum.

    Their gradient is zero, which plain SGD does not take for "leave alone". They and their
    optimiser state come out of ``optimizer.step()`` bit-identical. State that this very step
    creates is, there, what the optimiser itself makes of a weight and a gradient of zero: nothing
    for moments that start at zero, a positive number for those that start at one.

    Args:
        prunodes: Called at every step: the Prunodes that are alive.
        optimizer: The optimiser of their weights; hooks are added to its ``step``.
    """

    def __init__(self, prunodes: Callable[[], Iterable[Prunode]], optimizer: Optimizer) -> None:
        self._prunodes = prunodes
        self._saved: list[tuple] = []
        optimizer.register_step_pre_hook(self._save)
        optimizer.register_step_post_hook(self._restore)

    @torch.no_grad()
    def _save(self, optimizer: Optimizer, *_) -> None:
        self._saved = []
        for prunode in self._prunodes():
            hi = prunode.pair()[1]
            for parameter, dim in prunode.hidden_tensors():
                unused = parameter.shape[dim] - hi
                if unused and parameter.grad is not None:
                    old = {
                        name: value.narrow(dim, hi, unused).clone()
                        for name, value in _tensors(optimizer, parameter).items()
                    }
                    self._saved.append((parameter, dim, hi, unused, old))
                    # Weight decay then has nothing to put into a state that is created now.
                    parameter.narrow(dim, hi, unused).zero_()

    @torch.no_grad()
    def _restore(self, optimizer: Optimizer, *_) -> None:
        for parameter, dim, hi, unused, old in self._saved:
            for name, value in _tensors(optimizer, parameter).items():
                if name in old:
                    value.narrow(dim, hi, unused).copy_(old[name])
        self._saved = []


def forget_removed(optimizer: Optimizer, model: nn.Module) -> None:
    """Drop parameters that ``model`` no longer has, and their state, from an optimiser."""
    alive = {id(parameter) for parameter in model.parameters()}
    for group in optimizer.param_groups:
        group['params'] = [p for p in group['params'] if id(p) in alive]
    reset_state(optimizer, [p for p in optimizer.state if id(p) not in alive])


def reset_state(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Forget the state (moments, step count) that an optimiser keeps of ``parameters``."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def _tensors(optimizer: Optimizer, parameter: nn.Parameter) -> dict:
    """The parameter and those tensors of its state that have its shape."""
    state = optimizer.state.get(parameter, {})
    same = {k: v for k, v in state.items() if torch.is_tensor(v) and v.shape == parameter.shape}
    return {'': parameter.data, **same}
