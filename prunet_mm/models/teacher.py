"""A model that learns from another one, which is no part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Taught:
    """Mixin for an mmengine model with a teacher.

    The teacher never changes: it is in evaluation mode and has no gradients. It moves with the
    student from device to device, but is no part of it: not of its parameters, its state dict, its
    distributed wrapper or its averages. It is made for training only, when weights are initialised;
    testing a student takes neither its weights nor the package it comes from.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._unregistered = _Unregistered()

    def make_teacher(self) -> nn.Module:
        """Makes the teacher, with weights."""
        raise NotImplementedError

    @property
    def teacher(self) -> nn.Module:
        """The teacher, made when it is first asked for."""
        if self._unregistered.module is None:
            teacher = self.make_teacher().eval().requires_grad_(False)
            self._unregistered.module = teacher.to(next(self.parameters()))
        return self._unregistered.module

    def ask(self, images: Tensor) -> Any:
        """Returns what the teacher makes of images (N, C, H, W)."""
        return self.teacher(images)

    @torch.no_grad()
    def taught(self, images: Tensor) -> Any:
        """As `ask`, but once for the same images, on which a search compares networks."""
        kept = self._unregistered
        if kept.images is not images:
            kept.told = self.ask(images)
            kept.images = images
        return kept.told

    def init_weights(self) -> None:
        """Initialises the student; what is wrong with the teacher shows here, before training."""
        super().init_weights()
        _ = self.teacher

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        # What to(), cuda(), half() and the like are made of.
        if self._unregistered.module is not None:
            self._unregistered.module._apply(fn, recurse)
        return super()._apply(fn, recurse)


class _Unregistered:
    """Holds a module where `nn.Module` does not look for submodules; copies share it."""

    module: nn.Module | None = None
    images: Tensor | None = None  # that it saw last
    told: Any = None  # what it made of them

    def __deepcopy__(self, memo: dict) -> _Unregistered:
        return self
