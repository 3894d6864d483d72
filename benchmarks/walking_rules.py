"""How well the walking rules find the best widths under a budget, where the best is known.

A surrogate stands in for the network: twelve layers whose loss falls with the hidden width and
saturates, each with an importance of its own; gradients as noisy as those of a real search; a
latency table with steps. Rules, objective, schedules and rounding are the real ones. The optimum is
found by dynamic programming over the table.

    python benchmarks/walking_rules.py [--seeds 24] [--out benchmarks/results/walking_rules.json]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from pathlib import Path

import numpy as np
import torch

from prunet_mm.engine.files import write_atomic
from prunet_mm.search.hooks.prunode_hook import NARROWING
from prunet_mm.search.hooks.temperature_hook import COOLING
from prunet_mm.search.objective import AugmentedLagrangian
from prunet_mm.search.rounding import fit_widths
from prunet_mm.search.schedule import Schedule
from prunet_mm.supernet.rules import RULES, WalkingRule
from prunet_mm.supernet.unused_channels import reset_state

LAYERS, GRANULARITY, STEPS = 12, 32, 400
BEST_SNR = 0.9  # of the gradient on the most important width, per step; the others' is lower
TICK_MS = 1e-4  # all latencies are multiples of it
RESULT = Path(__file__).parent / 'results/walking_rules.json'
LEARNING_RATES = dict(width=0.01, logits=0.1)


class Surrogate:
    """A task and a device with a known optimum.

    Loss: sum over layers of ``importance * exp(-width / (widest * saturation))``. Latency:
    launch overhead plus a slope times the width, rounded up to the layer's own step.

    Args:
        seed: Everything is drawn with it.
        scale: Sum of the importances: how much loss there is to win.
    """

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.widest = 8 * rng.choice([64, 96, 128, 192, 256], LAYERS)
        importance = rng.lognormal(0, 1, LAYERS)
        saturation = rng.uniform(0.15, 0.6, LAYERS)
        slope_ms = rng.lognormal(0, 0.5, LAYERS) * 0.1 / self.widest
        step = rng.choice([1, 2, 4], LAYERS) * GRANULARITY
        self.grids, self.losses, self.costs_ms = [], [], []
        for i, widest in enumerate(self.widest):
            grid = np.arange(GRANULARITY, widest + 1, GRANULARITY)
            cost_ms = 0.002 + slope_ms[i] * np.ceil(grid / step[i]) * step[i]
            self.grids.append(grid)
            self.losses.append(importance[i] * np.exp(-grid / widest / saturation[i]))
            self.costs_ms.append(np.round(cost_ms / TICK_MS) * TICK_MS)
        total = importance.sum()
        self.losses = [losses * scale / total for losses in self.losses]
        steepest = max(
            np.interp(0.45, grid / grid[-1], losses) - np.interp(0.55, grid / grid[-1], losses)
            for grid, losses in zip(self.grids, self.losses, strict=True)
        )
        self.noise = steepest / 0.1 / BEST_SNR
        self.largest_ms = sum(costs[-1] for costs in self.costs_ms)

    def loss(self, widths) -> float:
        """Return the task loss of one hidden width per layer."""
        return sum(
            losses[w // GRANULARITY - 1] for w, losses in zip(widths, self.losses, strict=True)
        )

    def latency_ms(self, widths) -> float:
        """Return the latency of one hidden width per layer, in ms."""
        return sum(
            costs[w // GRANULARITY - 1] for w, costs in zip(widths, self.costs_ms, strict=True)
        )

    def optimum(self, budget_ms: float) -> float:
        """Return the lowest loss that any widths within the budget have."""
        ticks = int(budget_ms / TICK_MS + 1e-6)
        best = np.zeros(ticks + 1)  # lowest loss of the layers so far within so many ticks
        for losses, costs in zip(self.losses, self.costs_ms, strict=True):
            extended = np.full(ticks + 1, np.inf)
            for loss, cost in zip(losses, np.round(costs / TICK_MS).astype(int), strict=True):
                if cost <= ticks:
                    at = extended[cost:]
                    np.minimum(at, best[: len(at)] + loss, out=at)
            best = extended
        return float(best[-1])

    def uniform(self, budget_ms: float) -> list[int]:
        """Return the widths with one expansion for all layers, and rounded, at a budget."""
        for share in np.linspace(1, 0, 1001):
            learned = share * self.widest
            widths = [max(int(w) // GRANULARITY, 1) * GRANULARITY for w in learned]
            if self.latency_ms(widths) <= budget_ms:
                break
        return self.rounded(widths, budget_ms)

    def rounded(self, widths: list[int], budget_ms: float) -> list[int]:
        """Return the widths after the search's own rounding to the budget."""
        nearest = [width // GRANULARITY - 1 for width in widths]
        base, rises = self.loss(widths), []
        for i, grid in enumerate(self.grids):
            row = []
            for index in (nearest[i] - 1, nearest[i] + 1):
                other = [*widths[:i], int(grid[index % len(grid)]), *widths[i + 1 :]]
                row.append(self.loss(other) - base if 0 <= index < len(grid) else 0.0)
            rises.append(tuple(row))
        named = [dict(enumerate(rows)) for rows in (map(list, self.costs_ms), nearest, rises)]
        (taken,) = fit_widths(*named, budget_ms)
        return [int(self.grids[i][index]) for i, index in taken.items()]


def search(surrogate: Surrogate, kind: str, budget_ms: float, seed: int, **options) -> dict:
    """Run one search on a surrogate.

    Args:
        surrogate: What is searched.
        kind: Walking rule, ``'width'`` or ``'logits'``.
        budget_ms: Latency asked for.
        seed: Of the gradient noise.
        options: ``steps`` and ``lr``, where others than the defaults are wanted.

    Returns:
        Latencies relative to the budget: errors of E[lat] and of the derived network before
        rounding, the lowest E[lat] on the way, the share used after it; the loss after it.
    """
    steps = options.get('steps', STEPS)
    rng = np.random.default_rng(seed)
    rules: list[WalkingRule] = [
        RULES[kind](list(map(int, grid)), initial=0.5) for grid in surrogate.grids
    ]
    objective = AugmentedLagrangian(budget_ms)
    lr = options.get('lr', LEARNING_RATES[kind])
    adam = torch.optim.Adam(
        [p for rule in rules for p in rule.parameters()], lr=lr, betas=(0.5, 0.95), fused=True
    )
    gap, temperature = Schedule.build(NARROWING), Schedule.build(COOLING)
    path = []
    for step in range(steps):
        progress = (step + 1) / steps
        for rule in rules:
            reset_state(adam, rule.set_gap(gap(progress)))
            rule.temperature = temperature(progress)
        adam.param_groups[0]['lr'] = lr * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        noise = rng.normal(0, surrogate.noise, LAYERS)
        task, expected_ms = mixed(surrogate, rules, noise)
        adam.zero_grad()
        objective(task, expected_ms).backward()
        adam.step()
        for rule in rules:
            reset_state(adam, rule.walk())
        objective.update(expected_ms.item())
        path.append(expected_ms.item() / budget_ms)
    learned = [rule.expected().item() for rule in rules]
    widths = [
        int(min(grid, key=lambda width, at=at: abs(width - at)))
        for grid, at in zip(surrogate.grids, learned, strict=True)
    ]
    final = surrogate.rounded(widths, budget_ms)
    return dict(
        expected_error=path[-1] - 1,
        derived_error=surrogate.latency_ms(widths) / budget_ms - 1,
        lowest=min(path) - 1,
        used=surrogate.latency_ms(final) / budget_ms,
        loss=surrogate.loss(final),
    )


def mixed(surrogate: Surrogate, rules, noise) -> tuple[torch.Tensor, torch.Tensor]:
    """Return task loss and E[latency] in ms as a SuperNet has them: both linear in every r.

    The noise is on the gradient with respect to the width as a fraction of the widest.
    """
    ends, weights = [], []
    for i, rule in enumerate(rules):
        lo, hi, r = rule.pair()
        losses, costs = surrogate.losses[i], surrogate.costs_ms[i]
        a, b = lo // GRANULARITY - 1, hi // GRANULARITY - 1
        tilt = noise[i] / surrogate.widest[i]
        ends.append((losses[a] + tilt * lo, losses[b] + tilt * hi, costs[a], costs[b]))
        weights.append(r)
    r = torch.stack(weights).double()
    loss_lo, loss_hi, cost_lo, cost_hi = torch.tensor(ends, dtype=torch.float64).T
    return (loss_lo + r * (loss_hi - loss_lo)).sum(), (cost_lo + r * (cost_hi - cost_lo)).sum()


def trial(seed: int, kind: str, ratio: float, scale: float = 1.0, **options) -> dict:
    """Search one surrogate at a fraction of its largest latency; add optimum and uniform."""
    surrogate = Surrogate(seed, scale)
    budget_ms = round(surrogate.largest_ms * ratio / TICK_MS) * TICK_MS
    result = search(surrogate, kind, budget_ms, seed, **options)
    best = surrogate.optimum(budget_ms)
    result['regret'] = result['loss'] - best
    result['uniform_regret'] = surrogate.loss(surrogate.uniform(budget_ms)) - best
    return result


def summary(results: list[dict]) -> dict[str, float]:
    """Return what the trials say together."""
    column = {key: np.array([result[key] for result in results]) for key in results[0]}
    return dict(
        seeds=len(results),
        expected_error=float(np.abs(column['expected_error']).mean()),
        derived_error=float(np.abs(column['derived_error']).mean()),
        worst_derived_error=float(np.abs(column['derived_error']).max()),
        bias=float(column['derived_error'].mean()),
        lowest=float(column['lowest'].min()),
        used=float(column['used'].mean()),
        regret_of_uniforms=float(column['regret'].mean() / column['uniform_regret'].mean()),
        worse_than_uniform=int((column['regret'] > column['uniform_regret']).sum()),
    )


def main() -> None:
    """Measure both rules at two budgets, the default one on losses of three scales."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=24)
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    conditions = [(kind, ratio, 1.0) for kind in RULES for ratio in (0.5, 0.2)]
    conditions += [('width', 0.5, 0.1), ('width', 0.5, 10.0)]
    print(f'{"rule":8}{"budget":>8}{"scale":>8}{"error":>8}{"worst":>8}{"regret":>8}{"used":>8}')
    rows = []
    for kind, ratio, scale in conditions:
        row = summary([trial(seed, kind, ratio, scale) for seed in range(args.seeds)])
        rows.append(dict(rule=kind, budget_ratio=ratio, loss_scale=scale, **row))
        print(
            f'{kind:8}{ratio:8.1f}{scale:8.1f}{row["derived_error"]:8.1%}'
            f'{row["worst_derived_error"]:8.1%}{row["regret_of_uniforms"]:8.3f}{row["used"]:8.1%}'
        )
    settings = dict(
        layers=LAYERS,
        granularity=GRANULARITY,
        steps=STEPS,
        best_snr=BEST_SNR,
        learning_rates=LEARNING_RATES,
        gap=NARROWING,
        temperature=COOLING,
        objective='AugmentedLagrangian',
    )
    software = dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__)
    record = dict(benchmark='walking_rules', settings=settings, software=software, results=rows)
    write_atomic(args.out, json.dumps(record, indent=2) + '\n')
    print(
        'errors: latency of the derived network before rounding, against the budget; regret: loss'
    )
    print(
        f'above the optimum, as a share of that of uniform widths; {args.seeds} seeds; {args.out}'
    )


if __name__ == '__main__':
    main()
