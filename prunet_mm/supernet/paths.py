"""Single paths through a SuperNet: one choice per layer, which a network could be derived from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from prunet_mm.supernet.prunode import Prunode
from prunet_mm.supernet.scores import Path
from prunet_mm.supernet.stochastic_layer import SKIP

Widths = Mapping[Prunode, int]  # hidden widths


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

    def deal(self, rng: random.Random, count: int) -> list[tuple[Path, Widths]]:
        """Draw networks for a step of the warm-up.

        Of every layer's choices they get different ones, as long as there are some (fairness as
        in *FairNAS*, arXiv 1907.01845): all are trained equally often, and among all kinds of
        neighbours, as they will be judged. Skips that are not open yet are among them. Widths
        share weights, so for these the sandwich rule of *Universally Slimmable Networks* (arXiv
        1903.05134) holds: who trains the ends trains what lies between.

        Args:
            rng: The same on all ranks.
            count: How many, at least 2.

        Returns:
            Path and hidden widths of each: the first at its widest, the last at its narrowest.
        """
        paths = [{} for _ in range(count)]
        for name, options in self.all_options().items():
            deck = []
            for path in paths:
                deck = deck or rng.sample(options, len(options))
                path[name] = deck.pop()
        rules = [max, *[rng.choice] * (count - 2), min]
        return [
            (path, {block: rule(block.widths) for block in self._prunodes_on(path)})
            for path, rule in zip(paths, rules, strict=True)
        ]

    def _prunodes_on(self, path: Path) -> list[Prunode]:
        layers = self.layers()
        blocks = [
            layers[name].candidates[choice] for name, choice in path.items() if choice != SKIP
        ]
        return [block for block in blocks if isinstance(block, Prunode)]

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

    def lean(self, decision: Mapping, part: float) -> None:
        """Go a part of the way to settling a layer: what is believed is mixed with the choice.

        Args:
            decision: ``layer`` and ``choice``; plain data, for it is in the state dict as it is.
            part: Of the way that is left, above 0 and below 1.
        """
        way = self.settling.get('way', 0.0)
        self.settling = dict(decision, way=way + part * (1 - way))
        self._write_structure()
        layer = self.layers()[decision['layer']]
        layer.believe(_mixed(layer.chances(), decision['choice'], part))

    @property
    def leaning(self) -> dict[str, str]:
        """The choice that is being settled, by layer."""
        return {self.settling['layer']: self.settling['choice']} if self.settling else {}

    @torch.no_grad()
    def believe(self, chances: Mapping[str, Tensor]) -> None:
        """Set the probabilities of all choices, in the order of :meth:`options`, by layer."""
        for name, layer in self.layers().items():
            believed = dict(zip(layer.options(), chances[name].tolist(), strict=True))
            if name == self.settling.get('layer'):
                believed = _mixed(believed, self.settling['choice'], self.settling['way'])
            layer.believe(believed)


def _mixed(chances: Mapping[str, float], sure: str, share: float) -> dict[str, float]:
    """Probabilities that are, to a share, all of one choice."""
    return {name: (1 - share) * chance + share * (name == sure) for name, chance in chances.items()}


@contextmanager
def at_widths(widths: Mapping[Prunode, int]) -> Iterator[None]:
    """Have some Prunodes at one hidden width each for a while."""
    before = {prunode: prunode.fixed_width for prunode in widths}
    for prunode, width in widths.items():
        prunode.fixed_width = width
    try:
        yield
    finally:
        for prunode, width in before.items():
            prunode.fixed_width = width
