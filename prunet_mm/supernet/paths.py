"""Single paths through a SuperNet: one choice per layer, which a network could be derived from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from prunet_mm.supernet.scores import Path
from prunet_mm.supernet.stochastic_layer import SKIP


class PathMixin:
    """The paths of a SuperNet that has ``layers()``, ``remove_layer()`` and a latency table."""

    def options(self) -> dict[str, list[str]]:
        """Return the choices that are left, by layer: candidates, and the skip where it is open."""
        return {name: layer.options() for name, layer in self.layers().items()}

    def all_options(self) -> dict[str, list[str]]:
        """Return the same with the skips that are still to be opened."""
        return {name: layer.options(closed=True) for name, layer in self.layers().items()}

    def draw_path(self, rng: random.Random, exploration: float = 0.0) -> dict[str, str]:
        """Draw a choice for every layer, by what is believed of them.

        Args:
            rng: The same on all ranks.
            exploration: Share of draws in which all choices are equally probable.
        """
        path = {}
        for name, layer in self.layers().items():
            chances = layer.chances()
            evenly = rng.random() < exploration
            weights = [1] * len(chances) if evenly else list(chances.values())
            (path[name],) = rng.choices(list(chances), weights)
        return path

    def draw_any_path(self, rng: random.Random, shallow: float = 1.0) -> dict[str, str]:
        """Draw a choice for every layer evenly, skips that are not open yet among them.

        Args:
            rng: The same on all ranks.
            shallow: How often what computes nothing (a skip, a shortcut) is drawn, relative to
                any other choice.
        """
        path = {}
        for name, layer in self.layers().items():
            options = layer.options(closed=True)
            weights = [shallow if _is_shallow(option) else 1 for option in options]
            (path[name],) = rng.choices(options, weights if any(weights) else None)
        return path

    def likeliest_path(self) -> dict[str, str]:
        """Return the most probable choice of every layer."""
        return {name: layer.likeliest() for name, layer in self.layers().items()}

    @contextmanager
    def on(self, path: Path | None) -> Iterator[None]:
        """Be one path for a while; None for the most probable choices."""
        layers = self.layers()
        before = [(layer, layer.path) for layer in layers.values()]
        try:
            for layer in layers.values():
                layer.path = None
            for name, choice in (path or {}).items():
                layers[name].path = choice
            yield
        finally:
            for layer, choice in before:
                layer.path = choice

    def path_ms(self, path: Path) -> float:
        """Return the expected latency of a path in ms, at its present hidden widths."""
        layers = self.layers()
        return self.fixed_ms + sum(
            layers[name].costs_ms()[choice] for name, choice in path.items() if choice != SKIP
        )

    def decide(self, layer: str, choice: str) -> None:
        """Settle one layer for good: its other choices are removed."""
        if choice == SKIP:
            self.remove_layer(layer)
            return
        chosen = self.layers()[layer]
        for name in [name for name in chosen.candidates if name != choice]:
            chosen.remove(name)
        chosen.close_skip()
        self._write_structure()

    def settle(self, path: Path | None = None) -> None:
        """Settle all layers, by default each for its most probable choice."""
        for name, choice in (path or self.likeliest_path()).items():
            self.decide(name, choice)

    @torch.no_grad()
    def believe(self, chances: Mapping[str, Tensor]) -> None:
        """Set the probabilities of all choices, in the order of :meth:`options`, by layer."""
        for name, layer in self.layers().items():
            layer.believe(dict(zip(layer.options(), chances[name].tolist(), strict=True)))


def _is_shallow(choice: str) -> bool:
    return choice == SKIP or choice.startswith('shortcut')
