"""The networks that a search might end in, judged side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mmengine.dist import all_reduce_params, is_distributed

from prunet_mm.datasets.streams import same_draws
from prunet_mm.errors import SearchError
from prunet_mm.models.statistics import recalibrate
from prunet_mm.search.choosing import (
    LITTLE,
    SLACK,
    can_use,
    exact_paths,
    most_frequent,
    values_of,
)
from prunet_mm.search.rounding import Rounding, round_widths
from prunet_mm.search.settle import mean_and_error, settled_path
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.stochastic_layer import SKIP

if TYPE_CHECKING:
    from prunet_mm.search.model import ArchitectureSearch

QUICK = 4  # batches for what is measured many times


class Finalist(NamedTuple):
    """A network that fits the budget.

    Attributes:
        path: Its choice by layer.
        rounding: Its hidden widths.
        loss: On the architecture's images, with norms of its own.
        behind: Loss above that of the best one, and the standard error of this.
        scored: Loss above that of the best one by the scores of its choices, with the price of
            the latency that its widths had to make up for.
    """

    path: dict[str, str]
    rounding: Rounding
    loss: float
    behind: tuple[float, float] = (0.0, 0.0)
    scored: float = 0.0


def judge_finalists(
    model: ArchitectureSearch,
    budget_ms: float,
    batches: Sequence,
    images: Sequence,
    paths: int = 6,
    roundings: int = 3,
) -> tuple[Finalist, ...]:
    """Judge the settled network, its other roundings, and other exact choices within the budget.

    Other choices are those that draws of the scores answer with most often. All are judged on the
    same images, with norms measured anew for each. The loss on shared weights is no accuracy after
    a training of its own, and the scores, a sum over what many paths had in common, are the better
    guide of the two (docs/search.md). So half of the verdict is what the scores say, half what is
    measured. Our reconstruction.

    Args:
        model: The search; weights and choices stay, norms do not.
        budget_ms: In ms.
        batches: Of the architecture's images.
        images: Batches of the weights' images, for the norms.
        paths: Most paths that are judged.
        roundings: Most roundings of the settled path.

    Returns:
        The best one first.

    Raises:
        SearchError: No path meets the budget.
    """
    supernet = model.supernet
    settled = settled_path(model, budget_ms, batches[:QUICK])
    values = values_of(supernet, model.scores)
    drawn = [
        path
        for slack in ((SLACK, LITTLE) if supernet.widths_move else (SLACK,))
        for path in exact_paths(supernet, values, budget_ms, model.price_per_ms, slack=slack)
    ]
    others = [
        path
        for path in most_frequent(drawn, paths)
        if path != settled and can_use(supernet, path, budget_ms)
    ]
    judged, misfit = [], None
    for path in [settled, *others[: paths - 1]]:
        most = roundings if path is settled else 1
        try:
            rounded = round_widths(model, path, budget_ms, batches[:QUICK], most)
        except SearchError as error:  # it was chosen at widths that were to follow, and cannot
            misfit = error
            continue
        for rounding in rounded:
            layers = supernet.layers()
            blocks = {layers[n].candidates[path[n]]: w for n, w in rounding.widths.items()}
            with supernet.on(path), at_widths(blocks):
                measure_norms(model, images)
                model.eval()
                losses = model.task_losses(batches, path)
                model.train()
            judged.append((path, rounding, losses, _scored(model, path)))
    if not judged:
        raise misfit
    judged.sort(key=lambda one: float(one[2].mean()) + one[3])
    _, _, least, scored = judged[0]
    return tuple(
        Finalist(path, rounding, float(losses.mean()), mean_and_error(losses - least), own - scored)
        for path, rounding, losses, own in judged
    )


def _scored(model: ArchitectureSearch, path: Mapping[str, str]) -> float:
    """What the scores make of a path, up to a constant; 0 where choices are blended."""
    if model.supernet.sampling != 'hard':
        return 0.0
    mean = model.scores.mean()
    loss = float(sum(mean[model.scores.column(*choice)] for choice in path.items()))
    if model.supernet.widths_move:
        loss += model.price_per_ms * model.supernet.path_ms(path)
    return loss


def measure_norms(model: ArchitectureSearch, images: Sequence) -> None:
    """Let the norms hold the statistics of what the SuperNet is at present."""
    with same_draws('norms'):  # for each that is compared
        recalibrate(model, images, model.losses)
    if is_distributed():  # each rank has seen images of its own
        all_reduce_params([b for b in model.buffers() if b.is_floating_point()], op='mean')


def describe(finalist: Finalist) -> str:
    """Return a finalist in a line: choices and hidden widths by layer."""
    widths = finalist.rounding.widths
    return ', '.join(
        f'{layer} {choice}' + (f' {widths[layer]}' if layer in widths else '')
        for layer, choice in finalist.path.items()
        if choice != SKIP
    )
