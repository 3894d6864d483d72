"""Exact choices under a latency budget: multiple-choice knapsacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

BINS = 2000  # of the budget, in which many knapsacks at once count latency


def best_choices(
    values: Sequence[np.ndarray], costs: Sequence[Sequence[float]], budget: float
) -> np.ndarray:
    """Solve many knapsacks at once that differ in their values only, by dynamic programming.

    Costs are rounded up to 1/2000 of the budget, so no solution exceeds it.

    Args:
        values: To be minimised, per layer (problems, choices).
        costs: Per layer, of its choices, none below 0.
        budget: Most that one choice per layer may cost in sum. Where nothing fits, the cheapest
            choices are the solution.

    Returns:
        Chosen indices, (problems, layers).
    """
    cheapest = [int(np.argmin(cost)) for cost in costs]
    problems = values[0].shape[0]
    units = [np.ceil(np.asarray(cost) / max(budget, 1e-300) * BINS - 1e-9) for cost in costs]
    if sum(unit[i] for unit, i in zip(units, cheapest, strict=True)) > BINS:
        return np.tile(cheapest, (problems, 1))
    total, chosen = np.zeros((problems, BINS + 1)), []
    for value, unit in zip(values, units, strict=True):
        sums = np.full((len(unit), problems, BINS + 1), np.inf)
        for choice, shift in enumerate(unit.astype(int)):
            if shift <= BINS:
                sums[choice, :, shift:] = total[:, : BINS + 1 - shift] + value[:, [choice]]
        chosen.append(sums.argmin(0))
        total = sums.min(0)
    left, picks = np.full(problems, BINS), []
    for choice, unit in zip(reversed(chosen), reversed(units), strict=True):
        pick = choice[np.arange(problems), left]
        picks.append(pick)
        left = left - unit[pick].astype(int)
    return np.stack(picks[::-1], 1)


def knapsack(
    values: Sequence[Sequence[float]],
    costs: Sequence[Sequence[float]],
    budget: float,
    least: float = 0.0,
) -> Iterator[tuple[int, ...]]:
    """Yield the best choices under a budget, the second best, and so on, exactly.

    Args:
        values: To be minimised in sum, per layer and choice.
        costs: The same shape.
        budget: Most that the chosen ones may cost in sum.
        least: Least that they may.

    Yields:
        An index per layer.
    """
    sizes = [len(value) for value in values]
    starts = np.cumsum([0, *sizes])
    one_each = np.zeros((len(sizes), starts[-1]))
    for row, (start, size) in enumerate(zip(starts, sizes, strict=False)):
        one_each[row, start : start + size] = 1
    shares = np.concatenate(costs) / budget  # so that the solver's tolerance is relative
    slack = 1e-12  # of sums; a budget of all that there is must fit itself
    lowest, highest = least / budget - slack, 1 + slack
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(shares[None], lowest, highest),
    ]
    # to be solved to the end: a solver stops at gaps, of which one is absolute
    scaled = np.concatenate(values) / max(np.abs(np.concatenate(values)).max(), 1e-300)
    settings = dict(integrality=1, bounds=Bounds(0, 1), options=dict(mip_rel_gap=0))
    while True:
        found = milp(scaled, constraints=constraints, **settings)
        if found.x is None:
            return
        picked = found.x.round()
        if lowest <= shares @ picked <= highest:  # the solver's tolerance is wider
            yield tuple(
                int(picked[start : start + size].argmax())
                for start, size in zip(starts, sizes, strict=False)
            )
        constraints.append(LinearConstraint(picked[None], 0, len(sizes) - 1))
