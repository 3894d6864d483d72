"""One place for a layer in a search space, and the blocks that may stand there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from prunet_mm.errors import SpecError
from prunet_mm.spec.kernels import BlockKey
from prunet_mm.spec.layer import LayerSpec
from prunet_mm.spec.validation import shown


class Candidate(NamedTuple):
    """One block that a layer may become.

    Attributes:
        name: Op and kernel, such as 'irb_k3'; unique within its position.
        se: Squeeze channels of squeeze-and-excitation, 0 for none.
        widths: The hidden widths it may have, ascending and evenly spaced; empty where the op has
            none.
        extra: What else a `LayerSpec` of it says, as pairs of field and value.
    """

    name: str
    op: str
    kernel: int
    act: str
    se: int
    widths: tuple[int, ...]
    extra: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Position:
    """One place for a layer.

    Attributes:
        stage: Number of the stage, from 1.
        index: Number of the layer within its stage, from 1.
        height: Rows of the layer's *input*, in pixels; ``width`` its columns.
        candidates: What may stand here; never empty.
        skip: Whether a network may do without the layer, unless it is the first of its stage.
    """

    stage: int
    index: int
    in_channels: int
    out_channels: int
    stride: int
    height: int
    width: int
    candidates: tuple[Candidate, ...]
    skip: bool = True

    @property
    def name(self) -> str:
        return f'stage{self.stage}.layer{self.index}'

    @property
    def skippable(self) -> bool:
        """Whether a network may do without it: by default every layer but the first of a stage."""
        return self.skip and self.index > 1

    def layer(self, candidate: Candidate, hidden: int = 0) -> LayerSpec:
        """The layer that ``candidate`` makes here.

        Args:
            candidate: One of :attr:`candidates`.
            hidden: One of its ``widths``; 0 where it has none.

        Raises:
            SpecError: The candidate does not have this width.
        """
        if hidden not in (candidate.widths or (0,)):
            raise SpecError(
                f'{self.name}, {candidate.name}: hidden: found {shown(hidden)}, '
                f'expected {grid(candidate.widths)}'
            )
        return LayerSpec(
            op=candidate.op,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            kernel=candidate.kernel,
            stride=self.stride,
            hidden=hidden,
            act=candidate.act,
            se=candidate.se,
            stage=self.stage,
            **dict(candidate.extra),
        )

    def layers(self) -> list[LayerSpec]:
        """Every layer that may stand here, by candidate and hidden width."""
        return [
            self.layer(candidate, hidden)
            for candidate in self.candidates
            for hidden in candidate.widths or (0,)
        ]

    def block_keys(self) -> list[BlockKey]:
        """Every block that may stand here, as latency tables name it."""
        return [layer.block_key(self.height, self.width) for layer in self.layers()]

    def why_not(self, layer: LayerSpec) -> str | None:
        """What keeps ``layer`` from standing here: 'FIELD: found ..., expected ...', or None."""
        for field in ('stage', 'in_channels', 'out_channels', 'stride'):
            if getattr(layer, field) != getattr(self, field):
                return _differs(field, layer, str(getattr(self, field)))
        left = self.candidates
        for field in ('op', 'kernel', 'act', 'se'):
            allowed = list(dict.fromkeys(getattr(candidate, field) for candidate in left))
            left = [one for one in left if getattr(one, field) == getattr(layer, field)]
            if not left:
                return _differs(field, layer, ' or '.join(map(shown, allowed)))
        if layer.hidden not in (left[0].widths or (0,)):
            return _differs('hidden', layer, grid(left[0].widths))
        found, expected = (
            one.block_key(self.height, self.width)
            for one in (layer, self.layer(left[0], layer.hidden))
        )
        for field in BlockKey._field_defaults:  # which a key has only where they are unusual
            if getattr(found, field) != getattr(expected, field):
                return _differs(field, layer, shown(getattr(expected, field)))
        return None


def grid(widths: tuple[int, ...]) -> str:
    """The hidden widths a candidate has, in words."""
    if len(widths) < 2:
        return str(widths[0] if widths else 0)
    return f'{widths[0]} to {widths[-1]} in steps of {widths[1] - widths[0]}'


def _differs(field: str, layer: LayerSpec, expected: str) -> str:
    return f'{field}: found {shown(getattr(layer, field))}, expected {expected}'
