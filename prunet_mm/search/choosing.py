"""From scores of single choices to probabilities of choices, and to whole paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prunet_mm.search.exact import best_choices
from prunet_mm.search.rounding import SHARE
from prunet_mm.supernet import SuperNet
from prunet_mm.supernet.scores import Path, PathScores

# Shares of a budget that widths can make up for: with some steps, and by rounding alone.
SLACK, LITTLE = 0.1, 0.03
FORBIDDEN = 1e6  # a loss that nothing is worth, unless there is no other choice

Values = Mapping[str, Tensor]  # per layer: of its options, (draws, options), to be minimised


def values_of(supernet: SuperNet, scores: PathScores, mean: bool = False) -> Values:
    """Return what the choices that are left add to the loss.

    Args:
        supernet: Says which those are. Where it blends them, their surprise, -log p, is returned.
        scores: Of a SuperNet with hard paths.
        mean: One row, the expectation, instead of draws from the posterior.
    """
    options = supernet.options()
    if supernet.sampling != 'hard':
        layers = supernet.layers()
        chances = {name: list(layers[name].chances().values()) for name in options}
        return {name: -torch.tensor([row]).clamp(min=1e-12).log() for name, row in chances.items()}
    rows = scores.mean()[None] if mean else scores.draws()
    return {
        name: rows[:, [scores.column(name, choice) for choice in choices]]
        for name, choices in options.items()
    }


def chances_at(supernet: SuperNet, values: Values, price_per_ms: float) -> dict[str, Tensor]:
    """Return how probably each option is the best one, if a ms costs so much loss.

    A probability is a share of draws from the posterior. None is quite 0, for what is never
    drawn could not come back.
    """
    chances = {}
    for name, layer in supernet.layers().items():
        costs = torch.tensor(list(layer.costs_ms().values()), dtype=torch.float64)
        best = (values[name] + price_per_ms * costs.to(values[name])).argmin(1)
        chances[name] = _shares(best, len(costs))
    return chances


def price_for(supernet: SuperNet, values: Values, budget_ms: float) -> float:
    """Return the price of a ms in loss at which E[lat] meets a budget, by bisection.

    Where there are no widths to move, E[lat] is nearly a step function of the price: a multiplier
    that follows the gap would swing from one end of the space to the other.

    Args:
        supernet: Holds the choices and what they cost.
        values: What they add to the loss; a path per row.
        budget_ms: In ms.
    """
    costs = {
        name: torch.tensor(list(layer.costs_ms().values()), dtype=torch.float64)
        for name, layer in supernet.layers().items()
    }
    values = {name: values[name].cpu() for name in costs}

    def expected_ms(price: float) -> float:
        chosen = (cost[(values[name] + price * cost).argmin(1)] for name, cost in costs.items())
        return supernet.fixed_ms + sum(float(cost.mean()) for cost in chosen)

    spread = sum(float(value.max() - value.min()) for value in values.values())
    steps = [float(cost.sort().values.diff().clamp(min=1e-9).min()) for cost in costs.values()
             if len(cost) > 1]  # fmt: skip
    high = spread / min(steps, default=1.0)  # at which latency alone decides
    low = -high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_ms(middle) > budget_ms else (low, middle)
    return high


def exact_paths(
    supernet: SuperNet,
    values: Values,
    budget_ms: float,
    price_per_ms: float = 0.0,
    fixed: Path | None = None,
    slack: float = SLACK,
) -> list[dict[str, str]]:
    """Return, for every draw, the best path within a budget at the present hidden widths.

    Where widths are searched they can follow: then every ms has its price, and a path may exceed
    the budget by what widths make up for, so that none loses a layer for some granules. For the
    same reason no choice is made with which the rest, at its widest, could not use the budget.
    Where no path is within the budget at the present widths, those are returned that are at the
    narrowest.

    Args:
        supernet: Holds the choices and what they cost.
        values: What they add to the loss; a path per row.
        budget_ms: In ms.
        price_per_ms: What a ms costs in loss.
        fixed: Choices that are settled already, by layer.
        slack: Share of the budget that widths are to make up for, where they are searched.
    """
    fixed, options, costs, narrowest = fixed or {}, {}, {}, {}
    for name, layer in supernet.layers().items():
        here, least = layer.costs_ms(), layer.narrowest_ms()
        options[name] = [fixed[name]] if name in fixed else list(here)
        costs[name] = np.array([here[choice] for choice in options[name]])
        narrowest[name] = np.array([least[choice] for choice in options[name]])
    columns = supernet.options()
    rows = [
        values[name][:, [columns[name].index(choice) for choice in choices]].cpu().numpy()
        for name, choices in options.items()
    ]
    left_ms, counted = budget_ms - supernet.fixed_ms, costs
    if supernet.widths_move:
        lost = _too_fast(supernet, options, budget_ms)
        rows = [
            row + price_per_ms * costs[name] + FORBIDDEN * lost[name]
            for row, name in zip(rows, costs, strict=True)
        ]
        share = left_ms / (budget_ms * (1 + slack) - supernet.fixed_ms)
        # No width makes up for more than it has above the narrowest.
        counted = {name: np.maximum(costs[name] * share, narrowest[name]) for name in costs}
    if sum(cost.min() for cost in counted.values()) > left_ms:
        counted = narrowest
    picks = best_choices(rows, list(counted.values()), left_ms)
    return [
        {name: choices[pick] for pick, (name, choices) in zip(row, options.items(), strict=True)}
        for row in picks
    ]


def can_use(supernet: SuperNet, path: Path, budget_ms: float) -> bool:
    """Whether a path can use a budget at its widest; where no widths move, it need not."""
    layers = supernet.layers()
    widest_ms = sum(layers[name].widest_ms()[choice] for name, choice in path.items())
    return not supernet.widths_move or supernet.fixed_ms + widest_ms >= SHARE * budget_ms


def _too_fast(
    supernet: SuperNet, options: Mapping[str, list[str]], budget_ms: float
) -> dict[str, np.ndarray]:
    """Which options leave a network that cannot use the budget, even at its widest, by layer."""
    layers = supernet.layers()
    widest = {}
    for name, choices in options.items():
        costs = layers[name].widest_ms()
        widest[name] = np.array([costs[choice] for choice in choices])
    reach_ms = supernet.fixed_ms + sum(cost.max() for cost in widest.values())
    least_ms = min(SHARE * budget_ms, reach_ms)  # what was lost before is no fault of this choice
    return {name: reach_ms - cost.max() + cost < least_ms - 1e-9 for name, cost in widest.items()}


def marginals(paths: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Return how often each choice is made in some paths, by layer, most frequent first."""
    return {
        name: {
            choice: count / len(paths)
            for choice, count in Counter(path[name] for path in paths).most_common()
        }
        for name in paths[0]
    }


def most_frequent(paths: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Return the paths that occur most often, each once."""
    counted = Counter(tuple(path.items()) for path in paths)
    return [dict(path) for path, _ in counted.most_common(count)]


def _shares(best: Tensor, options: int) -> Tensor:
    counts = torch.from_numpy(np.bincount(best.cpu().numpy(), minlength=options))
    return (counts + 0.5) / (counts.sum() + 0.5 * options)
