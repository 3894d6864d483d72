"""Settling what is left to choose: one decision at a time, the clearest first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from prunet_mm.search.choosing import LITTLE, exact_paths, marginals, values_of
from prunet_mm.supernet.scores import Path

if TYPE_CHECKING:
    from prunet_mm.search.model import ArchitectureSearch

NEAR_TIE = 0.8  # share of draws below which a choice is not taken for granted


class Decision(NamedTuple):
    """One layer's settled choice.

    Attributes:
        share: Of the draws of the scores whose exact choice has it.
        rival: The next in share; None where no draw has another.
        rise: By how much the loss rises with the rival at equal latency, where that was measured.
        rise_se: Its standard error.
    """

    layer: str
    choice: str
    share: float
    rival: str | None = None
    rise: float | None = None
    rise_se: float | None = None


def next_decision(
    model: ArchitectureSearch, budget_ms: float, batches: Sequence, fixed: Path | None = None
) -> Decision | None:
    """Find the clearest of the choices that are left; nothing is changed.

    Every draw of the scores is answered by the exact choice under the budget, with what is
    settled as it is. So a decision never takes latency that the others cannot give back. Where
    draws disagree, the two networks that differ in it, each the best one within the budget, are
    measured on the same images. Our reconstruction.

    Args:
        model: Holds SuperNet and scores.
        budget_ms: In ms.
        batches: For near ties.
        fixed: Settled choices, by layer.

    Returns:
        None where nothing is left to choose.
    """
    supernet, fixed = model.supernet, fixed or {}
    options = supernet.options()
    left = [name for name in options if name not in fixed and len(options[name]) > 1]
    if not left:
        return None
    values, price = values_of(supernet, model.scores), model.price_per_ms
    shares = marginals(exact_paths(supernet, values, budget_ms, price, fixed))
    if supernet.sampling != 'hard':  # there is one draw only, whose choice stands
        layer = max(left, key=lambda name: max(supernet.layers()[name].chances().values()))
        (choice,) = shares[layer]
        return Decision(layer, choice, supernet.layers()[layer].chances()[choice])
    layer = min(left, key=lambda name: _order(supernet.layers()[name], shares[name], budget_ms))
    choice, *others = shares[layer]
    share = shares[layer][choice]
    if not others or share >= NEAR_TIE:
        return Decision(layer, choice, share, next(iter(others), None))
    rival, mean = others[0], values_of(supernet, model.scores, mean=True)
    one, other = (
        exact_paths(supernet, mean, budget_ms, price, {**fixed, layer: taken})[0]
        for taken in (choice, rival)
    )
    rise, se = mean_and_error(model.task_losses(batches, other) - model.task_losses(batches, one))
    if supernet.widths_move:  # which make up for the difference in latency, at its price
        rise += price * (supernet.path_ms(other) - supernet.path_ms(one))
    if rise < 0:
        choice, rival, share, rise = rival, choice, shares[layer][rival], -rise
    return Decision(layer, choice, share, rival, rise, se)


def _order(layer, shares: dict[str, float], budget_ms: float) -> tuple[float, float]:
    """Clearest first; behind them those whose latency the rest could not give back."""
    choice, costs = next(iter(shares)), layer.costs_ms()
    expected_ms = sum(chance * costs[name] for name, chance in layer.chances().items())
    jump = abs(costs[choice] - expected_ms) / budget_ms
    return (jump if jump > LITTLE else 0.0), -shares[choice]


def settled_path(model: ArchitectureSearch, budget_ms: float, batches: Sequence) -> dict[str, str]:
    """Settle all that is left, without a step in between, and return the path; change nothing."""
    fixed = model.supernet.leaning
    while decision := next_decision(model, budget_ms, batches, fixed):
        fixed[decision.layer] = decision.choice
    return model.supernet.likeliest_path() | fixed


def mean_and_error(differences) -> tuple[float, float]:
    """Return the mean of paired differences (batches,) and its standard error."""
    count = len(differences)
    error = float(differences.std()) / count**0.5 if count > 1 else float('inf')
    return float(differences.mean()), error


def circumstances(runner, probes: int = 2, paths: int = 4) -> dict[str, float]:
    """Return what a reader needs to believe a decision: prices, and two gaps.

    The gaps are between what is expected and the network that would be derived now: its latency
    against E[lat] (``derived_ms``, ``expected_ms``), and its loss against the mean of paths as
    they are drawn (``derived_loss``, ``expected_loss``), on the same images, with these images'
    own statistics in the norms.

    Args:
        runner: After an architecture step.
        probes: Architecture batches.
        paths: How many stand for the expectation.
    """
    loop, model = runner.train_loop, runner.model
    facts = model.price()
    if model.supernet.sampling != 'hard':
        return facts
    batches = loop.dataloader.probe('architecture', probes, loop.iter)
    rng = random.Random(f'{runner.seed} {loop.iter} circumstances')
    derived = model.derived_path()
    drawn = [model.task_loss(batches, model.supernet.draw_path(rng)) for _ in range(paths)]
    return facts | dict(
        derived_ms=model.supernet.path_ms(derived),
        derived_loss=model.task_loss(batches, derived),
        expected_loss=sum(drawn) / paths,
    )
