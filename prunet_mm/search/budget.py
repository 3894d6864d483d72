"""The latency budget: is it feasible, and how to make a derived network meet it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prunet_mm.errors import ConfigError, SearchError


@dataclass(frozen=True)
class Budget:
    """A latency in ms, and what the space allows around it.

    Attributes:
        budget_ms: The latency asked for.
        smallest_ms: Predicted latency of the fastest network of the space.
        largest_ms: Predicted latency of the largest network of the space.
    """

    budget_ms: float
    smallest_ms: float
    largest_ms: float

    @classmethod
    def resolve(
        cls, latency: dict, smallest_ms: float, largest_ms: float, table_kind: str = 'measured'
    ) -> Budget:
        """Read the budget from a config's ``latency`` and check it against the space.

        Args:
            latency: Has either ``budget_ms`` or ``budget_ratio``, a fraction of ``largest_ms``.
            smallest_ms: Latency of the fastest network of the space.
            largest_ms: Latency of the largest.
            table_kind: Of the table that both are from, 'measured' or 'estimated'.

        Raises:
            ConfigError: Not exactly one of ``budget_ms`` and ``budget_ratio`` is given.
            SearchError: No network of the space meets the budget, or every one does.
        """
        given = [k for k in ('budget_ms', 'budget_ratio') if latency.get(k) is not None]
        if len(given) != 1 or not _is_positive(latency[given[0]]):
            raise ConfigError(
                'model.latency needs exactly one of budget_ms and budget_ratio, and above 0; '
                f'found {", ".join(f"{k}={latency[k]}" for k in given) or "neither"}.'
            )
        if given == ['budget_ms']:
            budget = float(latency['budget_ms'])
        else:
            budget = largest_ms * float(latency['budget_ratio'])
        if not smallest_ms <= budget <= largest_ms:
            raise SearchError(
                f'The budget of {budget:.4g} ms is infeasible: in this space, by the {table_kind} '
                f'table, the smallest network takes {smallest_ms:.4g} ms and the largest '
                f'{largest_ms:.4g} ms; choose --latency-target-ms between them.'
            )
        return cls(budget, smallest_ms, largest_ms)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


@dataclass
class Row:
    """A layer in a repair: its grid of hidden widths, what they cost, and what was learned.

    Attributes:
        name: The layer.
        widths: Its hidden widths, ascending; one entry (0) for a plain convolution.
        costs_ms: Latency at each width, never falling.
        learned: Expected hidden width at the end of the search.
        index: Position of the present choice in ``widths``.
    """

    name: str
    widths: Sequence[int]
    costs_ms: Sequence[float]
    learned: float
    index: int

    @property
    def cost_ms(self) -> float:
        """Latency at the present choice, in ms."""
        return self.costs_ms[self.index]

    def surplus(self) -> float:
        """How far the present choice is above what was learned, in units of the widest width."""
        return (self.widths[self.index] - self.learned) / self.widths[-1]

    def fill(self) -> None:
        """Take the widest width that costs the same as the present one."""
        while self.up() is not None and self.costs_ms[self.up()] <= self.cost_ms:
            self.index = self.up()

    def up(self) -> int | None:
        """Index one granule up, if there is one."""
        return self.index + 1 if self.index + 1 < len(self.widths) else None

    def down(self) -> int | None:
        """Index of the widest width that is cheaper than the present one, if there is one."""
        cheaper = [i for i in range(self.index) if self.costs_ms[i] < self.cost_ms]
        return cheaper[-1] if cheaper else None


@dataclass(frozen=True)
class Repair:
    """Outcome of :func:`repair`.

    Attributes:
        predicted_ms: Latency of the repaired network.
        moves: One ``(layer, from width, to width)`` per granule moved, in order.
        blocked: Where less than the wanted share of the budget is used: the cheapest granule
            that is left, as ``(layer, width, ms)``, which no longer fits; None if every layer is
            at its widest, or the share was reached.
    """

    predicted_ms: float
    moves: tuple[tuple[str, int, int], ...]
    blocked: tuple[str, int, float] | None


def repair(rows: list[Row], fixed_ms: float, budget_ms: float, share: float = 0.99) -> Repair:
    """Move single granules until the budget is kept and at least ``share`` of it is used.

    Over the budget, the layer furthest above its learned width gives a granule up; under it,
    the layer furthest below its learned width takes one that fits. Widths that cost nothing more
    are taken at once. Our reconstruction.

    Args:
        rows: The layers; changed in place.
        fixed_ms: Latency of all that has no choice.
        budget_ms: Never exceeded in the end.
        share: Part of the budget that should be used.

    Raises:
        SearchError: Even the narrowest widths exceed the budget.
    """
    moves = []
    rounding_ms = 1e-12 * budget_ms  # of sums; a budget of all that there is must fit itself

    def total() -> float:
        return fixed_ms + sum(row.cost_ms for row in rows)

    def move(row: Row, index: int) -> None:
        before = row.widths[row.index]
        row.index = index
        row.fill()
        moves.append((row.name, before, row.widths[row.index]))

    for row in rows:
        if row.up() is not None and row.costs_ms[row.up()] <= row.cost_ms:
            move(row, row.up())
    while total() > budget_ms + rounding_ms:
        able = [row for row in rows if row.down() is not None]
        if not able:
            raise SearchError(
                f'At their narrowest hidden widths the chosen layers take {total():.4g} ms, more '
                f'than the budget of {budget_ms:.4g} ms.'
            )
        row = max(able, key=Row.surplus)
        move(row, row.down())
    blocked = None
    while total() < share * budget_ms:
        room = budget_ms - total() + rounding_ms
        growable = [row for row in rows if row.up() is not None]
        fitting = [row for row in growable if row.costs_ms[row.up()] - row.cost_ms <= room]
        if fitting:
            row = min(fitting, key=Row.surplus)
            move(row, row.up())
            continue
        if growable:
            row = min(growable, key=lambda row: row.costs_ms[row.up()] - row.cost_ms)
            blocked = (row.name, row.widths[row.up()], row.costs_ms[row.up()] - row.cost_ms)
        break
    return Repair(total(), tuple(moves), blocked)
