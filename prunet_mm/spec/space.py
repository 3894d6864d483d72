"""Which networks a SuperNet holds: stages of layers, each with its candidate blocks."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import model_validator

from prunet_mm.errors import SpecError
from prunet_mm.spec.around import Around
from prunet_mm.spec.kernels import BlockKey, strided
from prunet_mm.spec.layer import LayerSpec, TailSpec
from prunet_mm.spec.network import NetworkSpec
from prunet_mm.spec.position import Candidate, Position
from prunet_mm.spec.preprocessing import Preprocessing
from prunet_mm.spec.stage import StageSpace
from prunet_mm.spec.validation import (
    Act,
    Epsilon,
    Many,
    Name,
    OddInt,
    PositiveInt,
    Same,
    Spec,
    Stride,
    check_stride,
    problem,
    shown,
)

Cost = Callable[[BlockKey], float]


class StemSpace(Spec):
    """The convolution in front of the stages; it is not searched."""

    out_channels: PositiveInt
    kernel: OddInt = 3
    stride: Stride = 2
    act: Act = 'relu'
    padding: Same | None = None


class SearchSpace(Spec):
    """Every network that a search may end in.

    Said in full, or as what is around a network: ``dict(type='around', arch=...)``, see `Around`.

    Attributes:
        resolution: Rows and columns of the input image in pixels.
        in_channels: Channels of the input image.
        tail: What ends a classifier; None for a bare backbone.
        norm_eps: What BatchNorms add to the variance.
        preprocessing: As in the networks, to whom it is passed on.
        origin: The network that this space is around, if it is around one.
    """

    name: Name
    resolution: PositiveInt
    in_channels: PositiveInt = 3
    stem: StemSpace
    stages: Many[StageSpace]
    tail: TailSpec | None = None
    norm_eps: Epsilon = 1e-3
    preprocessing: Preprocessing | None = None
    origin: NetworkSpec | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = 'config') -> SearchSpace:
        """Builds a space from nested dicts and lists; see :meth:`Spec.from_dict`."""
        if isinstance(data, Mapping) and data.get('type') == 'around':
            data = Around.from_dict(data, source).space(source)
        return super().from_dict(data, source)

    @model_validator(mode='after')
    def _fits_together(self) -> SearchSpace:
        channels, size = self.stem.out_channels, self.resolution
        check_stride(('stem',), self.stem.stride, size)
        size = strided(size, self.stem.stride)
        for number, stage in enumerate(self.stages):
            at = ('stages', number)
            check_stride(at, stage.stride, size)
            for index, inputs in enumerate((channels, stage.width)[: stage.depth], 1):
                if wrong := stage.off_grid(inputs, index):
                    field, text = wrong
                    raise problem((*at, *field), text)
            channels, size = stage.width, strided(size, stage.stride)
        if self.origin and (wrong := self.why_not(self.origin)):
            raise problem(('origin',), f'is no network of the space: {wrong}')
        return self

    @property
    def stem_layers(self) -> tuple[LayerSpec, ...]:
        """The stem as the networks of this space have it."""
        return (LayerSpec(op='conv', in_channels=self.in_channels, stage=0, **dict(self.stem)),)

    def positions(self) -> list[Position]:
        """Every place for a layer, in the order in which an image passes them."""
        return [position for stage in self._stages() for position in stage]

    def _stages(self) -> list[list[Position]]:
        stages, channels = [], self.stem.out_channels
        size = strided(self.resolution, self.stem.stride)
        for number, stage in enumerate(self.stages, 1):
            positions = []
            for index in range(1, stage.depth + 1):
                stride = stage.stride if index == 1 else 1
                candidates = stage.blocks(channels, index)
                place = number, index, channels, stage.width, stride, size, size
                skip = stage.layers[index - 1].skip if stage.layers else True
                positions.append(Position(*place, candidates, skip))
                channels, size = stage.width, strided(size, stride)
            stages.append(positions)
        return stages

    def network(
        self,
        choices: Iterable[tuple[Position, Candidate, int]],
        name: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> NetworkSpec:
        """The network of these choices; skipped positions are simply not among them.

        Args:
            choices: Position, one of its candidates, and its hidden width, 0 where it has none.
            name: What the network is called; the space's name by default.
            provenance: Where it is from, as free JSON.

        Raises:
            SpecError: The choices make no network of this space.
        """
        layers = [position.layer(candidate, hidden) for position, candidate, hidden in choices]
        return self._network(layers, name, provenance)

    def _network(self, layers: list[LayerSpec], name=None, provenance=None) -> NetworkSpec:
        parts = dict(
            name=self.name if name is None else name,
            resolution=self.resolution,
            in_channels=self.in_channels,
            stem=self.stem_layers,
            layers=layers,
            tail=self.tail,
            norm_eps=self.norm_eps,
            preprocessing=self.preprocessing,
            provenance=provenance or {},
        )
        spec = NetworkSpec.from_dict(parts, source='a network of these choices')
        if wrong := self.why_not(spec):
            raise SpecError(f'the choices make no network of the space {self.name}: {wrong}')
        return spec

    def contains(self, spec: NetworkSpec) -> bool:
        """Whether a search in this space could end in ``spec``, whatever its name."""
        return self.why_not(spec) is None

    def why_not(self, spec: NetworkSpec) -> str | None:
        """The first thing that keeps ``spec`` out of this space; None if it is inside."""
        for field in ('resolution', 'in_channels', 'tail', 'norm_eps'):
            found, expected = getattr(spec, field), getattr(self, field)
            if found != expected:
                return f'{field}: found {shown(found)}, expected {shown(expected)}'
        if spec.stem != self.stem_layers:
            return f'stem: found {shown(spec.stem)}, expected {shown(self.stem_layers)}'
        stages, count = self._stages(), Counter(layer.stage for layer in spec.layers)
        for number in sorted({*range(1, len(stages) + 1), *count}):
            positions = stages[number - 1] if number <= len(stages) else []
            least, most = len(_kept(positions)), len(positions)
            if not least <= count[number] <= most:
                expected = _up_to(most, least)
                return f'stage {number}: found {count[number]} layers, expected {expected}'
        done = 0
        for number, positions in enumerate(stages, 1):
            layers = spec.layers[done : done + count[number]]
            if not _fits(positions, layers):
                return _misfit(positions, layers, done)
            done += len(layers)
        return None

    def smallest(self, cost: Cost = BlockKey.macs) -> NetworkSpec:
        """The network with the fewest MACs: what cannot be skipped, each at its cheapest.

        Args:
            cost: What a block costs, if not its MACs, for instance by a latency table.
        """
        kept = [position for stage in self._stages() for position in _kept(stage)]
        layers = [min(one.layers(), key=_costs(one, cost)) for one in kept]
        return self._network(layers, f'{self.name}_smallest')

    def largest(self, cost: Cost = BlockKey.macs) -> NetworkSpec:
        """The network with the most MACs: every layer, each at its dearest; see `smallest`."""
        layers = [max(one.layers(), key=_costs(one, cost)) for one in self.positions()]
        return self._network(layers, f'{self.name}_largest')

    def random(self, rng: random.Random) -> NetworkSpec:
        """Any network of the space: depth, candidate and width are drawn uniformly, one by one.

        So networks do not have equal chances: uniform over networks would nearly always be deep.
        """
        choices = []
        for stage in self._stages():
            depth = rng.randint(len(_kept(stage)), len(stage))
            for position in _some(stage, depth, rng):
                candidate = rng.choice(position.candidates)
                choices.append((position, candidate, rng.choice(candidate.widths or (0,))))
        return self.network(choices, f'{self.name}_random')

    def size(self) -> int:
        """How many different networks the space holds, exactly.

        In a stage whose layers are given one by one, choices count: they may be the same network.
        """
        return math.prod(
            _choices(positions) if stage.layers else _networks(positions)
            for stage, positions in zip(self.stages, self._stages(), strict=True)
        )

    def block_keys(self) -> list[BlockKey]:
        """Every block that a network of the space can have: stem, layers, tail; each once."""
        (stem,) = self.stem_layers
        keys = [stem.block_key(self.resolution, self.resolution)]
        for position in self.positions():
            keys += position.block_keys()
        if self.tail:
            keys.append(self.tail.block_key(self.stages[-1].width, *keys[-1].out_size))
        return list(dict.fromkeys(keys))


def _up_to(most: int, least: int) -> str:
    return 'none' if not most else str(most) if least == most else f'{least} to {most}'


def _kept(stage: list[Position]) -> list[Position]:
    """What every network has."""
    return [position for position in stage if not position.skippable]


def _some(stage: list[Position], depth: int, rng: random.Random) -> list[Position]:
    """So many positions of a stage: the first ones, unless the later ones are others."""
    kinds = {(position.candidates, position.skip) for position in stage[1:]}
    if len(kinds) < 2:
        return stage[:depth]
    skippable = [position for position in stage if position.skippable]
    left_out = rng.sample(skippable, len(stage) - depth)
    return [position for position in stage if position not in left_out]


def _fits(positions: Sequence[Position], layers: Sequence[LayerSpec]) -> bool:
    """Whether the layers are what is left of these positions when some are skipped."""
    reached = {0}  # how many layers may be placed by now
    for position in positions:
        placed = {
            count + 1
            for count in reached
            if count < len(layers) and position.why_not(layers[count]) is None
        }
        reached = placed | (reached if position.skippable else set())
    return len(layers) in reached


def _misfit(positions: Sequence[Position], layers: Sequence[LayerSpec], before: int) -> str:
    """What is wrong with the first layer that fits nowhere behind those in front of it."""
    for count, layer in enumerate(layers):
        prefixes = (positions[:end] for end in range(count + 1, len(positions) + 1))
        if not any(_fits(prefix, layers[: count + 1]) for prefix in prefixes):
            reasons = (position.why_not(layer) for position in positions[count:])
            why = next(filter(None, reasons), 'stage: found a layer too many of its kind')
            return f'layers[{before + count}].{why}'
    return f'layers[{before + len(layers) - 1}]: a layer is missing behind it, or in front'


def _costs(position: Position, cost: Cost) -> Callable[[LayerSpec], float]:
    return lambda layer: cost(layer.block_key(position.height, position.width))


def _choices(stage: list[Position]) -> int:
    return math.prod(len(position.layers()) + position.skippable for position in stage)


def _networks(stage: list[Position]) -> int:
    """Distinct sequences of layers in a stage.

    Layers after the first have equal choices, so leaving out one or another of them gives the
    same networks: only their number counts.
    """
    first, *others = (
        sum(len(candidate.widths) or 1 for candidate in position.candidates) for position in stage
    )
    return first * sum(math.prod(others[:count]) for count in range(len(stage)))
