"""Which networks a SuperNet holds: stages of layers, each with its candidate blocks."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import model_validator

from prunet_mm.errors import SpecError
from prunet_mm.spec.kernels import BlockKey, strided
from prunet_mm.spec.layer import LayerSpec, TailSpec
from prunet_mm.spec.network import NetworkSpec
from prunet_mm.spec.position import Candidate, Position
from prunet_mm.spec.stage import StageSpace
from prunet_mm.spec.validation import (
    Act,
    Many,
    Name,
    OddInt,
    PositiveInt,
    Spec,
    Stride,
    check_stride,
    problem,
    shown,
)


class StemSpace(Spec):
    """The convolution in front of the stages; it is not searched."""

    out_channels: PositiveInt
    kernel: OddInt = 3
    stride: Stride = 2
    act: Act = 'relu'


class SearchSpace(Spec):
    """Every network that a search may end in.

    Attributes:
        resolution: Rows and columns of the input image in pixels.
        in_channels: Channels of the input image.
        tail: What ends a classifier; None for a bare backbone.
    """

    name: Name
    resolution: PositiveInt
    in_channels: PositiveInt = 3
    stem: StemSpace
    stages: Many[StageSpace]
    tail: TailSpec | None = None

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
                positions.append(
                    Position(number, index, channels, stage.width, stride, size, size, candidates)
                )
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
        for field in ('resolution', 'in_channels', 'tail'):
            found, expected = getattr(spec, field), getattr(self, field)
            if found != expected:
                return f'{field}: found {shown(found)}, expected {shown(expected)}'
        if spec.stem != self.stem_layers:
            return f'stem: found {shown(spec.stem)}, expected {shown(self.stem_layers)}'
        stages, count = self._stages(), Counter(layer.stage for layer in spec.layers)
        for number in sorted({*range(1, len(stages) + 1), *count}):
            most = len(stages[number - 1]) if number <= len(stages) else 0
            if not min(most, 1) <= count[number] <= most:
                return f'stage {number}: found {count[number]} layers, expected {_up_to(most)}'
        index = Counter()
        for at, layer in enumerate(spec.layers):
            wrong = stages[layer.stage - 1][index[layer.stage]].why_not(layer)
            if wrong:
                return f'layers[{at}].{wrong}'
            index[layer.stage] += 1
        return None

    def smallest(self) -> NetworkSpec:
        """The network with the fewest MACs: first layers only, each at its cheapest."""
        layers = [min(stage[0].layers(), key=_macs(stage[0])) for stage in self._stages()]
        return self._network(layers, f'{self.name}_smallest')

    def largest(self) -> NetworkSpec:
        """The network with the most MACs: every layer, each at its dearest."""
        layers = [max(one.layers(), key=_macs(one)) for one in self.positions()]
        return self._network(layers, f'{self.name}_largest')

    def random(self, rng: random.Random) -> NetworkSpec:
        """Any network of the space: depth, candidate and width are drawn uniformly, one by one.

        So networks do not have equal chances: uniform over networks would nearly always be deep.
        """
        choices = []
        for stage in self._stages():
            for position in stage[: rng.randint(1, len(stage))]:
                candidate = rng.choice(position.candidates)
                choices.append((position, candidate, rng.choice(candidate.widths or (0,))))
        return self.network(choices, f'{self.name}_random')

    def size(self) -> int:
        """How many different networks the space holds, exactly."""
        return math.prod(map(_networks, self._stages()))

    def block_keys(self) -> list[BlockKey]:
        """Every block that a network of the space can have: stem, layers, tail; each once."""
        (stem,) = self.stem_layers
        keys = [stem.block_key(self.resolution, self.resolution)]
        for position in self.positions():
            keys += position.block_keys()
        if self.tail:
            keys.append(self.tail.block_key(self.stages[-1].width, *keys[-1].out_size))
        return list(dict.fromkeys(keys))


def _up_to(most: int) -> str:
    return {0: 'none', 1: '1'}.get(most, f'1 to {most}')


def _macs(position: Position) -> Callable[[LayerSpec], int]:
    return lambda layer: layer.macs(position.height, position.width)


def _networks(stage: list[Position]) -> int:
    """Distinct sequences of layers in a stage.

    Layers after the first have equal choices, so leaving out one or another of them gives the
    same networks: only their number counts.
    """
    first, *others = (
        sum(len(candidate.widths) or 1 for candidate in position.candidates) for position in stage
    )
    return first * sum(math.prod(others[:count]) for count in range(len(stage)))
