"""Uniform scaling: what a search has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunet_mm.latency import LatencyTable
from prunet_mm.spec import Candidate, NetworkSpec, Position, SearchSpace

SHARE = 0.95  # of the budget, that a network has to use to be of equal latency


def uniform_networks(
    space: SearchSpace, table: LatencyTable, budget_ms: float
) -> dict[str, NetworkSpec]:
    """Scale networks of one depth and one kind of block to a latency, by one share of all widths.

    Args:
        space: Where they are from.
        table: Its latency table.
        budget_ms: Never exceeded.

    Returns:
        By name, ``'depth3_irb_k3'``, for every depth and candidate with which the budget can be
        used; the deepest first. A stage that lacks the depth or the candidate has its deepest, or
        its first one.
    """
    positions = space.positions()
    found = {}
    for depth in range(max(position.index for position in positions), 0, -1):
        there = [one for one in positions if one.index <= depth or not one.skippable]
        for name in dict.fromkeys(c.name for position in there for c in position.candidates):
            blocks = [(position, _candidate(position, name)) for position in there]
            label = f'depth{depth}_{name}'
            spec = _scaled(space, table, budget_ms, blocks, label)
            if spec and spec.layers not in [other.layers for other in found.values()]:
                found[label] = spec
    return found


def _candidate(position: Position, name: str) -> Candidate:
    return next((c for c in position.candidates if c.name == name), position.candidates[0])


def _scaled(space, table, budget_ms: float, blocks: Sequence, name: str) -> NetworkSpec | None:
    """The widest such network within the budget, or None where that is far from it."""
    best = None
    for shares in _shares(blocks):
        spec = space.network(
            [
                (position, candidate, min(candidate.widths, key=lambda w, s=share: abs(w - s))
                 if candidate.widths else 0)
                for (position, candidate), share in zip(blocks, shares, strict=True)
            ],
            name,
        )  # fmt: skip
        # Not the end if it does not fit: a larger share may suit the hardware.
        if table.predict_ms(spec) <= budget_ms * (1 + 1e-12):
            best = spec
    return best if best and table.predict_ms(best) >= SHARE * budget_ms else None


def _shares(blocks: Sequence, steps: int = 200) -> Iterator[list[float]]:
    """Hidden widths that rise together, as one share of each layer's widest."""
    for step in range(1, steps + 1):
        yield [step / steps * max(candidate.widths, default=0) for _, candidate in blocks]
