"""One stage of a search space: how many layers, and what each of them may be."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from pydantic import model_validator

from prunet_mm.spec.given import LayerSpace
from prunet_mm.spec.kernels import INVERTED
from prunet_mm.spec.position import Candidate
from prunet_mm.spec.validation import (
    Act,
    Choices,
    Expansion,
    Flag,
    Many,
    OddInt,
    Op,
    PositiveInt,
    Spec,
    Stride,
    check_shortcut,
    problem,
    shown,
)


class CandidateSpace(Spec):
    """A block that a layer may be, with hidden widths of its own.

    Attributes:
        expansions: Its hidden widths as multiples of the layer's input channels, ascending and
            evenly spaced; None for the stage's grid.
    """

    op: Op
    kernel: OddInt
    expansions: Many[Expansion] | None = None

    @model_validator(mode='after')
    def _fits_op(self) -> CandidateSpace:
        if self.op == 'shortcut':
            check_shortcut(self.kernel)
        if not self.expansions:
            return self
        found = f'found {_listed(self.expansions)}, expected'
        if self.op not in INVERTED:
            raise problem(('expansions',), f'{found} none, since a {self.op} has no hidden width')
        steps = {_exact(b) - _exact(a) for a, b in pairwise(self.expansions)}
        if len(steps) > 1 or min(steps, default=1) <= 0:
            text = 'ascending numbers at equal distances, such as 2, 4, 6'
            raise problem(('expansions',), f'{found} {text}')
        return self

    @property
    def name(self) -> str:
        return f'{self.op}_k{self.kernel}'

    def hidden(self, in_channels: int) -> tuple[Fraction, ...]:
        """Hidden width of each expansion, exactly; not all need be whole numbers."""
        return tuple(_exact(expansion) * in_channels for expansion in self.expansions or ())


class StageSpace(Spec):
    """A stage: up to ``depth`` layers of equal width, of which the first may change the stride.

    What a layer may be is said in short, by ops and kernels, each op with each kernel, or one by
    one, as ``candidates``.

    Attributes:
        width: Output channels of every layer.
        stride: Stride of the first layer; all others have 1.
        depth: Most layers; a network has at least one, the first, which may not be skipped.
        ops: What a layer may be; a shortcut has kernel 1, whatever the kernels.
        first_ops: What the first layer may be; None for the same as the others.
        candidates: What a layer may be, in place of ``ops`` and ``kernels``.
        first_candidates: What the first layer may be, in place of ``first_ops``; None for the same
            as the others.
        se: Squeeze-and-excitation in every irb and fused_irb, to a quarter of the block's input.
        max_expansion: Largest hidden width as a multiple of the layer's input channels, for all
            candidates without expansions of their own.
        granularity: Their hidden widths are multiples of it.
        layers: What each layer may be, one by one, in place of all that is said of candidates.
    """

    width: PositiveInt
    stride: Stride
    depth: PositiveInt
    ops: Choices[Op] = ('irb',)
    first_ops: Choices[Op] | None = None
    kernels: Choices[OddInt] = (3, 5)
    candidates: Many[CandidateSpace] | None = None
    first_candidates: Many[CandidateSpace] | None = None
    act: Act = 'relu'
    se: Flag = False
    max_expansion: PositiveInt = 8
    granularity: PositiveInt = 32
    layers: Many[LayerSpace] | None = None

    @model_validator(mode='after')
    def _layers_say_all(self) -> StageSpace:
        if not self.layers:
            return self
        if len(self.layers) != self.depth:
            text = f'found {self.depth}, expected {len(self.layers)}, as many as layers are given'
            raise problem(('depth',), text)
        for field in self.model_fields_set - {'width', 'stride', 'depth', 'layers'}:
            text = f'found {shown(getattr(self, field))}, expected none, since layers say it, too'
            raise problem((field,), text)
        return self

    @model_validator(mode='after')
    def _says_it_once(self) -> StageSpace:
        for field, others in (
            ('candidates', ('ops', 'first_ops', 'kernels')),
            ('first_candidates', ('first_ops',)),
        ):
            listed = getattr(self, field)
            for other in others if listed else ():
                found = getattr(self, other)
                if other in self.model_fields_set and found is not None:
                    text = f'found {shown(found)}, expected none, since {field} says it, too'
                    raise problem((other,), text)
            names = [candidate.name for candidate in listed or ()]
            for index, name in enumerate(names):
                if name in names[:index]:
                    text = f'found {name} twice, expected one, with all its expansions in one list'
                    raise problem((field, index), text)
        return self

    def blocks(self, in_channels: int, index: int) -> tuple[Candidate, ...]:
        """The candidates of layer number ``index``, from 1, that gets ``in_channels``."""
        if self.layers:
            return tuple(one.candidate() for one in self.layers[index - 1].candidates)
        squeeze = max(1, round(in_channels * 0.25)) if self.se else 0
        return tuple(
            Candidate(
                one.name,
                one.op,
                one.kernel,
                self.act,
                squeeze if one.op in INVERTED else 0,
                self._widths(one, in_channels),
            )
            for _, one in self._located(index)
        )

    def off_grid(self, in_channels: int, index: int) -> tuple[tuple, str] | None:
        """The field that gives layer number ``index`` no hidden widths, and why; or None."""
        for at, one in () if self.layers else self._located(index):
            if one.op in INVERTED and (wrong := self._no_widths(at, one, in_channels)):
                return wrong
        return None

    def _located(self, index: int) -> Iterator[tuple[tuple, CandidateSpace]]:
        """What layer number ``index`` may be, each behind the path of the field that says it."""
        first = index == 1
        field = 'first_candidates' if first and self.first_candidates else 'candidates'
        if listed := getattr(self, field):
            yield from (((field, number), one) for number, one in enumerate(listed))
            return
        for op in self.first_ops if first and self.first_ops else self.ops:
            for kernel in (1,) if op == 'shortcut' else self.kernels:
                yield (), CandidateSpace(op=op, kernel=kernel)

    def _widths(self, one: CandidateSpace, in_channels: int) -> tuple[int, ...]:
        if one.op not in INVERTED:
            return ()
        if one.expansions:
            return tuple(map(int, one.hidden(in_channels)))
        largest = self.max_expansion * in_channels
        return tuple(range(self.granularity, largest + 1, self.granularity))

    def _no_widths(
        self, at: tuple, one: CandidateSpace, in_channels: int
    ) -> tuple[tuple, str] | None:
        for number, hidden in enumerate(one.hidden(in_channels)):
            if hidden < 1 or hidden.denominator > 1:
                expansion = one.expansions[number]
                return (*at, 'expansions', number), (
                    f'found {expansion:g}, which makes the hidden width '
                    f'{expansion:g} x {in_channels} = {float(hidden):g}, '
                    'expected a whole number of channels, 1 or more'
                )
        largest = self.max_expansion * in_channels
        if one.expansions or (largest >= self.granularity and not largest % self.granularity):
            return None
        least = 'at least' if largest < self.granularity else 'a multiple of'
        return ('max_expansion',), (
            f'found {self.max_expansion}, which makes the largest hidden width '
            f'{self.max_expansion} x {in_channels} = {largest}, '
            f'expected {least} the granularity, {self.granularity}'
        )


def _exact(expansion: float) -> Fraction:
    """The fraction that is meant: 1.1 is 11/10 and 4 / 3 is 4/3, though no float is."""
    return Fraction(expansion).limit_denominator(10**6)


def _listed(numbers: tuple[float, ...]) -> str:
    return ', '.join(f'{number:g}' for number in numbers)
