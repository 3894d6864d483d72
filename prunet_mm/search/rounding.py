"""Hidden widths on the grid and within the budget: an exact knapsack over measured losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from prunet_mm.errors import SearchError
from prunet_mm.search.exact import knapsack
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.prunode import Prunode
from prunet_mm.supernet.scores import Path
from prunet_mm.supernet.stochastic_layer import SKIP

if TYPE_CHECKING:
    from prunet_mm.search.model import ArchitectureSearch

SHARE = 0.99  # of the budget, that should be used
MEASURED_SHARE = 0.98  # the same, where several are measured: steps of a grid may be coarse


@dataclass(frozen=True)
class Rounding:
    """Hidden widths of a path.

    Attributes:
        widths: By layer, of those that have any.
        predicted_ms: Latency of the path at these widths.
        moves: ``(layer, nearest width, taken width)`` where they differ.
        granules: Most granules that a layer was moved by. More than one says that the search had
            not converged to the budget.
        blocked: Where less than the wanted share of the budget is used: the cheapest granule that
            is left, as ``(layer, width, ms)``, which no longer fits.
    """

    widths: dict[str, int]
    predicted_ms: float
    moves: tuple[tuple[str, int, int], ...] = ()
    granules: int = 0
    blocked: tuple[str, int, float] | None = None


def round_widths(
    model: ArchitectureSearch,
    path: Path,
    budget_ms: float,
    batches: Sequence,
    most: int = 1,
    share: float = SHARE,
) -> list[Rounding]:
    """Bring the widths of a path to the grid: the best ways to use the budget without exceeding it.

    What a granule is worth is measured: the path's loss with one layer a granule narrower or
    wider. The sum of these rises is minimised exactly, over all layers at once. Each layer moves
    by one granule at most; by more only where the budget cannot be met otherwise, at the rise of
    as many single ones.

    Args:
        model: Holds the SuperNet, whose present widths are rounded.
        path: A choice by layer.
        budget_ms: In ms.
        batches: Of the architecture's images.
        most: How many roundings to return, the best one first; all of them fit the budget.
        share: Of the budget, that should be used.

    Raises:
        SearchError: Even the narrowest widths exceed the budget.
    """
    blocks = {
        name: model.supernet.layers()[name].candidates[choice]
        for name, choice in path.items()
        if choice != SKIP
    }
    prunodes = {name: block for name, block in blocks.items() if isinstance(block, Prunode)}
    fixed_ms = model.supernet.fixed_ms + sum(
        float(block.latency_ms[0]) for name, block in blocks.items() if name not in prunodes
    )
    least_ms = fixed_ms + sum(float(one.latency_ms.min()) for one in prunodes.values())
    if least_ms > budget_ms * (1 + 1e-12):
        raise SearchError(
            f'At their narrowest hidden widths the chosen layers take {least_ms:.4g} ms, more '
            f'than the budget of {budget_ms:.4g} ms.'
        )
    if not prunodes:
        return [Rounding({}, fixed_ms)]
    nearest = {name: one.widths.index(one.nearest_width()) for name, one in prunodes.items()}
    costs = {name: one.latency_ms.tolist() for name, one in prunodes.items()}
    rises = _rises(model, path, prunodes, nearest, batches)
    return [
        _rounding(prunodes, nearest, taken, fixed_ms, budget_ms, share)
        for taken in fit_widths(costs, nearest, rises, budget_ms, fixed_ms, most, share)
    ]


def fit_widths(
    costs_ms: Mapping[str, Sequence[float]],
    nearest: Mapping[str, int],
    rises: Mapping[str, tuple[float, float]],
    budget_ms: float,
    fixed_ms: float = 0.0,
    most: int = 1,
    share: float = SHARE,
) -> list[dict[str, int]]:
    """Choose an index on each layer's grid of widths; see :func:`round_widths`.

    Args:
        costs_ms: Latency at each width, by layer.
        nearest: Index of the width that is nearest to the one that was searched.
        rises: By layer: rise of the loss for a granule less, and for one more.
        budget_ms: Of all, with ``fixed_ms``; the narrowest widths fit.
        fixed_ms: What takes time beside the layers.
        most: How many solutions, the best first.
        share: Of the budget, that should be used.
    """
    names = list(costs_ms)

    def solutions(reach: int, least_ms: float, fill: bool = False) -> Iterator[dict[str, int]]:
        near = [
            [i for i in range(len(costs_ms[name])) if abs(i - nearest[name]) <= reach]
            for name in names
        ]
        costs = [[costs_ms[name][i] for i in row] for name, row in zip(names, near, strict=True)]
        values = [
            [abs(i - nearest[name]) * rises[name][i > nearest[name]] for i in row]
            for name, row in zip(names, near, strict=True)
        ]
        if fill:
            values = [[-cost for cost in row] for row in costs]
        for picks in knapsack(values, costs, budget_ms - fixed_ms, least_ms - fixed_ms):
            yield {n: row[pick] for n, row, pick in zip(names, near, picks, strict=True)}

    widest = max(map(len, costs_ms.values()))
    for reach in range(1, widest):
        if found := list(islice(solutions(reach, share * budget_ms), most)):
            return found
    return list(islice(solutions(widest, 0.0, fill=True), 1))


def _rises(model, path, prunodes, nearest, batches) -> dict[str, tuple[float, float]]:
    """By layer: the rise of the loss one granule down, and one granule up."""
    rises = {}
    with at_widths({one: one.widths[nearest[name]] for name, one in prunodes.items()}):
        base = model.task_loss(batches, path)
        for name, one in prunodes.items():
            row = []
            for index in (nearest[name] - 1, nearest[name] + 1):
                inside = 0 <= index < len(one.widths)
                with at_widths({one: one.widths[index]} if inside else {}):
                    row.append(model.task_loss(batches, path) - base if inside else 0.0)
            rises[name] = tuple(row)
    return rises


def _rounding(
    prunodes, nearest, taken, fixed_ms: float, budget_ms: float, share: float
) -> Rounding:
    """Describe the widths with the indices ``taken``."""
    predicted_ms = fixed_ms + sum(float(prunodes[n].latency_ms[i]) for n, i in taken.items())
    blocked = None
    if predicted_ms < share * budget_ms:
        growing = {
            (name, one.widths[index + 1]): float(one.latency_ms[index + 1] - one.latency_ms[index])
            for name, index in taken.items()
            if index + 1 < len((one := prunodes[name]).widths)
        }
        growing = {at: cost for at, cost in growing.items() if cost > budget_ms - predicted_ms}
        if growing:
            (layer, width) = min(growing, key=growing.get)
            blocked = layer, width, growing[layer, width]
    widths = {name: prunodes[name].widths[index] for name, index in taken.items()}
    return Rounding(
        widths,
        predicted_ms,
        tuple(
            (name, prunodes[name].widths[nearest[name]], width)
            for name, width in widths.items()
            if taken[name] != nearest[name]
        ),
        max(abs(taken[name] - nearest[name]) for name in taken),
        blocked,
    )
