"""Rules that choose a network without a search: what a search has to beat, and quick answers.

All of them cut the SuperNet as it starts, so they are for one that starts as a trained network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prunet_mm.engine.checkpoint import load_checkpoint_file, weights_of
from prunet_mm.errors import SearchError
from prunet_mm.search.exact import knapsack
from prunet_mm.search.importance import taylor
from prunet_mm.search.rounding import SHARE
from prunet_mm.supernet import SuperNet
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.stochastic_layer import SKIP

if TYPE_CHECKING:
    from prunet_mm.search.model import ArchitectureSearch

MEASURED = 8  # hidden widths of a layer that `lana` measures; between them it interpolates
STEPS = 400  # of the share that `uniform` keeps
LEAST = 0.25  # share of the widths that `uniform` keeps, if it can
DRAWS = 100_000


class Choice(NamedTuple):
    """What one layer may be.

    Attributes:
        option: A candidate's name, or `SKIP`.
        width: Hidden width, 0 where it has none.
        cost_ms: By the latency table.
    """

    option: str
    width: int
    cost_ms: float


Network = dict[str, Choice]  # by layer


def choices(model: ArchitectureSearch) -> dict[str, list[Choice]]:
    """Everything that each layer may be, the network's own candidate first, widths ascending."""
    found = {}
    for name, layer in model.supernet.layers().items():
        own = layer.best()
        ordered = [own, *(option for option in layer.candidates if option != own)]
        found[name] = [
            Choice(option, width, cost)
            for option in ordered
            for width, cost in zip(
                getattr(layer.candidates[option], 'widths', (0,)),
                layer.candidates[option].latency_ms.tolist(),
                strict=True,
            )
        ]
        if not layer.stays:
            found[name].append(Choice(SKIP, 0, 0.0))
    return found


def by_taylor(
    model: ArchitectureSearch, budget_ms: float, batches: Sequence, rng: random.Random
) -> Network:
    """Keep the channels with the most importance that fit: an exact knapsack.

    A layer's value is the sum over its channels; to skip it costs all of it. Other kernels have no
    value of their own, so there are none. After *Structural Pruning via Latency-Saliency Knapsack*
    (HALP, arXiv 2210.06659), which knows no skips.
    """
    importance = taylor(model, batches)
    losses, options = {}, {}
    for name, found in choices(model).items():
        own = found[0].option
        options[name] = [one for one in found if one.option in (own, SKIP)]
        kept = importance[name].cumsum(0).tolist() if name in importance else []
        whole = kept[-1] if kept else 0.0
        losses[name] = [
            whole - (kept[one.width - 1] if one.width else 0.0) for one in options[name]
        ]
        if not kept:  # a layer without hidden channels has no importance that would let it go
            options[name], losses[name] = options[name][:1], [0.0]
    return _exact(model, options, losses, budget_ms)


def by_lana(
    model: ArchitectureSearch, budget_ms: float, batches: Sequence, rng: random.Random
) -> Network:
    """Measure how much the loss rises with every alternative alone, then choose exactly.

    After *LANA: Latency Aware Network Acceleration* (arXiv 2107.10624). Widths are measured at
    some points, and of another kernel at its widest: its rise is added to the width's.
    """
    supernet, options, losses = model.supernet, choices(model), {}
    path = supernet.likeliest_path()
    base = model.task_loss(batches, path)

    def rise(layer: str, option: str, width: int = 0) -> float:
        block = supernet.layers()[layer].candidates[option] if width else None
        with at_widths({block: width} if width else {}):
            return model.task_loss(batches, {**path, layer: option}) - base

    for name, found in options.items():
        own = found[0].option
        widths = [one.width for one in found if one.option == own]
        at = _spread(widths, MEASURED)
        measured = {width: rise(name, own, width) for width in at[:-1]} | {at[-1]: 0.0}
        alone = {option: rise(name, option) for option in {one.option for one in found} - {own}}
        losses[name] = [
            alone.get(one.option, 0.0) + (_between(measured, one.width) if one.width else 0.0)
            for one in found
        ]
    return _exact(model, options, losses, budget_ms)


def uniform(
    model: ArchitectureSearch, budget_ms: float, batches: Sequence, rng: random.Random
) -> Network:
    """Scale all hidden widths of the network by one share, the largest that fits.

    Where that would leave less than `LEAST` of them, its stages are cut to fewer layers first.
    """
    own = {
        name: [one for one in found if one.option == found[0].option]
        for name, found in choices(model).items()
    }
    layers, best = model.supernet.layers(), (0, None)
    for depth in range(max(layer.position.index for layer in layers.values()), 0, -1):
        gone = [n for n, one in layers.items() if one.position.index > depth and not one.stays]
        for step in range(best[0] + 1, STEPS + 1):
            network = {
                name: Choice(SKIP, 0, 0.0)
                if name in gone
                else min(found, key=lambda one: abs(one.width - step / STEPS * found[-1].width))
                for name, found in own.items()
            }
            # Not the end if it does not fit: a larger share may suit the hardware.
            if latency_ms(model, network) <= budget_ms * (1 + 1e-12):
                best = step, network
        if best[0] >= LEAST * STEPS:
            break
    if best[1] is None:
        raise _misfit(budget_ms)
    return best[1]


def drawn(
    model: ArchitectureSearch, budget_ms: float, batches: Sequence, rng: random.Random
) -> Network:
    """Draw networks, make random layers cheaper, until one uses nearly all of the budget."""
    options = choices(model)
    for _ in range(DRAWS):
        network = {name: rng.choice(found) for name, found in options.items()}
        while latency_ms(model, network) > budget_ms:
            name = rng.choice(list(network))
            cheaper = [one for one in options[name] if one.cost_ms < network[name].cost_ms]
            if cheaper:
                network[name] = rng.choice(cheaper)
            elif all(one.cost_ms >= network[n].cost_ms for n in network for one in options[n]):
                raise _misfit(budget_ms)
        if latency_ms(model, network) >= SHARE * budget_ms:
            return network
    raise SearchError(
        f'In {DRAWS:,} random networks none uses {100 * SHARE:.0f} % of {budget_ms:.4g} ms.'
    )


def as_found(model: ArchitectureSearch, path: str) -> Network:
    """The network that a search around the same one has ended in, without its weights.

    Raises:
        CheckpointError: It is no checkpoint of a search.
        SearchError: It is of another space.
    """
    weights = weights_of(load_checkpoint_file(path))
    found = SuperNet.from_state_dict(weights, 'architecture.backbone.')
    rows = {name: (option, width) for name, option, width, _ in found.choices()}
    network = {}
    for name, options in choices(model).items():
        wanted = rows.get(name, (SKIP, 0))
        network[name] = next((one for one in options if one[:2] == wanted), None)
        if network[name] is None:
            raise SearchError(
                f'{path}: {name} is {wanted[0]} {wanted[1]}, which is not in this space.'
            )
    return network


Rule = Callable[['ArchitectureSearch', float, Sequence, random.Random], Network]
RULES: Mapping[str, Rule] = dict(taylor=by_taylor, lana=by_lana, uniform=uniform, random=drawn)


def latency_ms(model: ArchitectureSearch, network: Network) -> float:
    """A network's latency by the table."""
    return model.supernet.fixed_ms + sum(one.cost_ms for one in network.values())


def _exact(model, options: Mapping, losses: Mapping, budget_ms: float) -> Network:
    """The choices with the least sum of losses that fit the budget."""
    left_ms = budget_ms - model.supernet.fixed_ms
    costs = [[one.cost_ms for one in found] for found in options.values()]
    if sum(map(min, costs)) > left_ms:
        raise _misfit(budget_ms)
    picks = next(knapsack(list(losses.values()), costs, left_ms))
    return {name: found[pick] for pick, (name, found) in zip(picks, options.items(), strict=True)}


def _misfit(budget_ms: float) -> SearchError:
    return SearchError(
        f'By this rule no network is as fast as {budget_ms:.4g} ms: ask for more, or search.'
    )


def _spread(widths: Sequence[int], most: int) -> list[int]:
    """Some of the widths, evenly, the first and the last among them."""
    if len(widths) <= most:
        return list(widths)
    return [widths[round(i * (len(widths) - 1) / (most - 1))] for i in range(most)]


def _between(measured: Mapping[int, float], width: int) -> float:
    """A value at a width, linear between those that were measured."""
    low = max(one for one in measured if one <= width)
    high = min(one for one in measured if one >= width)
    share = (width - low) / (high - low) if high > low else 0.0
    return (1 - share) * measured[low] + share * measured[high]
