"""The layers of a stage one by one, each with candidates of its own: a space around a network."""

from __future__ import annotations

from pydantic import model_validator

from prunet_mm.spec.kernels import INVERTED
from prunet_mm.spec.layer import LayerSpec
from prunet_mm.spec.position import Candidate
from prunet_mm.spec.validation import (
    Act,
    Flag,
    Gate,
    HiddenWidth,
    Many,
    NonNegativeInt,
    OddInt,
    Op,
    PositiveInt,
    Same,
    Spec,
    problem,
)


class BlockSpace(Spec):
    """A block that a layer may be: what a `LayerSpec` says, for a range of hidden widths.

    Attributes:
        hidden: The largest hidden width; 0 where the op has none.
        step: Distance of the smaller ones down from there; None for the largest alone.
    """

    op: Op
    kernel: OddInt
    act: Act
    hidden: HiddenWidth = 0
    step: PositiveInt | None = None
    se: NonNegativeInt = 0
    padding: Same | None = None
    residual: Flag | None = None
    act_last: Flag = False
    se_act: Act | None = None
    se_gate: Gate = 'sigmoid'

    @model_validator(mode='after')
    def _has_widths(self) -> BlockSpace:
        if self.step and self.op not in INVERTED:
            raise problem(
                ('step',),
                f'found {self.step}, expected None, since a {self.op} has no hidden width',
            )
        return self

    def candidate(self) -> Candidate:
        """The block as positions hold it."""
        widths = (self.hidden,) if self.hidden else ()
        if self.step:
            widths = tuple(range(self.hidden % self.step or self.step, self.hidden + 1, self.step))
        others = ('padding', 'residual', 'act_last', 'se_act', 'se_gate')
        extra = {
            name: value
            for name in others
            if (value := getattr(self, name)) != LayerSpec.model_fields[name].default
        }
        return Candidate(
            f'{self.op}_k{self.kernel}',
            self.op,
            self.kernel,
            self.act,
            self.se,
            widths,
            tuple(extra.items()),
        )


class LayerSpace(Spec):
    """One layer of a stage.

    Attributes:
        candidates: What it may be, each op and kernel once.
        skip: Whether a network may do without it; the first of a stage stays in any case.
    """

    candidates: Many[BlockSpace]
    skip: Flag = True

    @model_validator(mode='after')
    def _says_each_once(self) -> LayerSpace:
        names = [one.candidate().name for one in self.candidates]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise problem(('candidates', index), f'found {name} twice, expected one')
        return self
