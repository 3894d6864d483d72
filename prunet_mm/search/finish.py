"""From a searched SuperNet to a network that keeps the budget."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mmcv
from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log

from prunet_mm.engine.checkpoint import save_checkpoint_file
from prunet_mm.engine.process import in_a_process
from prunet_mm.errors import PrunetError, SearchError, one_line
from prunet_mm.latency.promise import OVER, Promise, keep
from prunet_mm.report import PAGE, write_page
from prunet_mm.search.finalists import QUICK, Finalist, judge_finalists, measure_norms
from prunet_mm.search.frontier import add_to_frontier, read_frontier, write_frontier
from prunet_mm.search.history import FILE_NAME
from prunet_mm.search.model import ArchitectureSearch
from prunet_mm.search.record import write_asked, write_found
from prunet_mm.search.report import Outcome, pictures, write_report
from prunet_mm.search.rounding import MEASURED_SHARE, Rounding, round_widths
from prunet_mm.search.rules import RULES, as_found, latency_ms
from prunet_mm.spec import NetworkSpec
from prunet_mm.supernet.paths import at_widths
from prunet_mm.timing.device import is_here

SUBNET = 'subnet.json'
CORRECTIONS = 2  # of the widths, by what was measured
SECONDS = 20.0  # that a measurement of what was found takes, at most
ROUNDINGS = 4  # that a correction measures
JUDGED, JUDGED_IMAGES = 4, 128  # batches that a rule measures on, and images one by one


@dataclass(frozen=True)
class Result:
    """What a search ends in.

    Attributes:
        spec: The network.
        rounding: How its widths were brought to the budget.
        loss: Task loss on images of the architecture's part, with the SuperNet's own weights.
        finalists: All networks that were judged, the best one first.
    """

    spec: NetworkSpec
    rounding: Rounding
    loss: float
    finalists: tuple[Finalist, ...]


def finish(runner, model: ArchitectureSearch, budget_ms: float, batches: int = 20) -> Result:
    """Settle what is left to choose, round the widths, judge the finalists, take the best.

    Afterwards the SuperNet is that one network: its widths are settled, and its norms hold the
    statistics of this network on training images without a gradient step. Networks are judged
    on images that no weight was trained on.

    Args:
        runner: A runner whose loop has the images.
        model: The search, or a copy of it; it is changed.
        budget_ms: Never exceeded by the network.
        batches: Number of batches for the norms' statistics, and for the loss.

    Raises:
        SearchError: No choice of widths keeps the budget.
    """
    data, supernet = runner.train_loop.dataloader, model.supernet
    supernet.set_gap(0.0)
    if supernet.reachable_ms() > budget_ms:  # a target before the skips open, which takes some
        supernet.open_skips()
    model.train()
    probe = data.probe('architecture', batches)
    images = data.probe('weights', batches)
    finalists = judge_finalists(model, budget_ms, probe, images)
    supernet.settle(finalists[0].path)
    return _settled(runner, model, finalists[0].rounding, budget_ms, probe, images, finalists)


def apply_rule(runner, name: str, batches: int = 20) -> Result:
    """Cut the SuperNet, as it starts, to the network that a rule chooses within the budget.

    Args:
        runner: A runner whose loop has the images, and its model's weights are initialised.
        name: Of the rule, in `prunet_mm.search.rules.RULES`, or a search's ``searched.pth``, whose
            network is taken.
        batches: Number of batches for the norms' statistics, and for the loss.

    Raises:
        SearchError: By this rule nothing is within the budget.
    """
    model, data = runner.model, runner.train_loop.dataloader
    budget_ms = model.budget.budget_ms
    probe = data.probe('architecture', batches)
    if name in RULES:
        rng = random.Random(f'{runner.seed} {name}')
        single = data.probe('architecture', JUDGED_IMAGES, batch_size=1)
        judged = single if name == 'taylor' else probe[:JUDGED]
        network = RULES[name](model, budget_ms, judged, rng)
    else:
        network = as_found(model, name)
    finalist = Finalist(
        {layer: one.option for layer, one in network.items()},
        Rounding(
            {layer: one.width for layer, one in network.items() if one.width},
            latency_ms(model, network),
        ),
        math.nan,
    )
    images = data.probe('weights', batches)
    model.supernet.settle(finalist.path)
    return _settled(runner, model, finalist.rounding, budget_ms, probe, images, (finalist,))


def _settled(runner, model, rounding, budget_ms, probe, images, finalists) -> Result:
    """Give a SuperNet of one path its hidden widths; derive and judge the network."""
    supernet = model.supernet
    for name, layer in supernet.layers().items():
        (block,) = layer.candidates.values()
        if getattr(block, 'rule', None):
            block.rule.jump(rounding.widths[name])
            block.fixed_width = rounding.widths[name]
    measure_norms(model, images)
    model.eval()
    loss = model.task_loss(probe)
    estimated = 'estimated_' if model.table.kind == 'estimated' else ''
    spec = supernet.derive(
        name=f'{supernet.space.name}_{estimated}{rounding.predicted_ms:.4g}ms',
        provenance=dict(
            predicted_ms=round(rounding.predicted_ms, 6),
            budget_ms=budget_ms,
            table=model.table.digest,
            latency=model.table.describe(),
            seed=runner.seed,
        ),
    )
    return Result(spec, rounding, loss, finalists)


def corrected(runner, result: Result, scale: float, batches: int = 20) -> list[Rounding]:
    """Redo the last step of a search, the rounding, with the table rescaled.

    Args:
        runner: Its model is the SuperNet of ``result``, and stays as it is.
        result: What was too fast or too slow.
        scale: What a network takes, relative to what the table says; predictions are those of the
            table times this.
        batches: As in :func:`finish`.

    Returns:
        Several ways to use the budget then, from the widths that the search had come to, the best
        one first; none where not even the narrowest keep it.
    """
    model, layers = runner.model, runner.model.supernet.layers()
    path = {name: next(iter(one.candidates)) for name, one in layers.items()}
    found = result.rounding.widths | {name: width for name, width, _ in result.rounding.moves}
    searched = {layers[name].candidates[path[name]]: width for name, width in found.items()}
    probe = runner.train_loop.dataloader.probe('architecture', batches)[:QUICK]
    budget_ms = result.spec.provenance['budget_ms'] / scale
    model.train()
    try:
        with at_widths(searched):
            roundings = round_widths(model, path, budget_ms, probe, ROUNDINGS, MEASURED_SHARE)
    except SearchError:
        return []
    finally:
        model.eval()
    return [replace(one, predicted_ms=scale * one.predicted_ms) for one in roundings]


def take_target(runner, target_ms: float) -> None:
    """Settle and export a copy of a search at one of its targets; the search is not touched.

    Written: ``subnet_TARGETms.json``, ``searched_TARGETms.pth`` and a row in ``frontier.json``.
    """
    model = copy.deepcopy(runner.model)
    result = finish(runner, model, target_ms)
    if runner.rank == 0:
        work_dir, stem = Path(runner.work_dir), f'_{target_ms:g}ms'
        result.spec.save(work_dir / f'subnet{stem}.json')
        save_checkpoint_file(dict(state_dict=model.state_dict()), work_dir / f'searched{stem}.pth')
        add_to_frontier(work_dir, target_ms, result)
        runner.logger.info(
            f'step {runner.train_loop.iter + 1}: subnet{stem}.json is the network for '
            f'{target_ms:g} ms, predicted at {result.rounding.predicted_ms:.4g} ms, loss '
            f'{result.loss:.4f}; the budget falls on'
        )


def conclude(runner, result: Result | None = None) -> Result:
    """Finish a search and leave its results in the work dir.

    Written: ``subnet.json``, ``searched.pth`` (the SuperNet, recalibrated to that network),
    ``report.html``, and pictures of how it was found, which mmengine's visualizer gets too. Where
    this is the device of the latency table, the network is measured, and its widths are corrected
    if the table had misjudged it. A summary goes to the log.

    Args:
        runner: Of the search.
        result: What it ends in, where a rule has chosen it; it is measured as it is.
    """
    model, work_dir = runner.model, Path(runner.work_dir)
    budget_ms = model.budget.budget_ms
    chosen, result = result is not None, result or finish(runner, model, budget_ms)
    if runner.rank == 0:
        _save(runner, result)  # before it is measured, which may be interrupted
    rows = read_frontier(work_dir) if runner.rank == 0 and len(model.budget.targets_ms) > 1 else []
    faster = [NetworkSpec.load(work_dir / row['subnet']) for row in rows if _other(row, budget_ms)]
    origin = model.supernet.space.origin
    others = [*faster, *filter(None, [origin])]
    result, promises, scale = _kept(runner, result, others, 0 if chosen else CORRECTIONS)
    if runner.rank != 0:
        return result
    promise = promises and promises[0]
    if promise:
        kept = dict(measured=promise.to_dict(), table_rescaled_by=round(scale, 6))
        provenance = result.spec.provenance | kept
        result = replace(result, spec=result.spec.model_copy(update=dict(provenance=provenance)))
    _save(runner, result)
    if rows := read_frontier(work_dir) if len(model.budget.targets_ms) > 1 else []:
        timings = [one.timing for one in promises or ()]
        others = iter(timings[1:])
        for row in rows if timings else ():
            timing = next(others) if _other(row, budget_ms) else timings[0]
            row.update(measured_ms=timing.latency_ms, measured_iqr_ms=timing.iqr_ms)
        write_frontier(work_dir, rows)
    outcome = Outcome(
        budget_ms=budget_ms,
        predicted_ms=result.rounding.predicted_ms,
        promise=promise,
        rescaled_by=scale,
        origin_ms=model.table.predict_ms(origin) if origin else None,
        measured_origin=promises[-1].timing if promises and origin else None,
        table_kind=model.table.kind,
        table_device=model.table.describe(),
        space=model.supernet.space,
        block_ms=[scale * model.table.block_ms(key) for key in result.spec.block_keys()],
        rounding=result.rounding,
        finalists=result.finalists,
        derived_loss=result.loss,
        other_size=model.other_size,
        train_config=runner.cfg.get('train_config', 'CONFIG'),
        trained=_with_weights(model) if model.supernet.importance else None,
    )
    write_asked(runner)  # also where no search went before, but a checkpoint of one
    write_found(work_dir, outcome, runner.iter)
    if (work_dir / FILE_NAME).exists():
        write_page([work_dir], work_dir / PAGE)
    runner.logger.info(write_report(work_dir, result.spec, outcome))
    for path in pictures(work_dir):
        image = mmcv.imread(path, channel_order='rgb')
        runner.visualizer.add_image(path.stem, image, step=runner.iter)
    return result


def _save(runner, result: Result) -> None:
    """Write a search's network, and the SuperNet that has become it."""
    work_dir, budget_ms = Path(runner.work_dir), runner.model.budget.budget_ms
    result.spec.save(work_dir / SUBNET)
    save_checkpoint_file(dict(state_dict=runner.model.state_dict()), work_dir / 'searched.pth')
    if len(runner.model.budget.targets_ms) > 1:
        result.spec.save(work_dir / f'subnet_{budget_ms:g}ms.json')
        add_to_frontier(work_dir, budget_ms, result)


def _with_weights(model: ArchitectureSearch) -> list[str]:
    """The parts of the searched model that have weights, beside the backbone."""
    parts = model.architecture.named_children()
    return [
        name for name, part in parts if name != 'backbone' and any(True for _ in part.parameters())
    ]


def _other(row: dict, budget_ms: float) -> bool:
    return row['target_ms'] != budget_ms


def _kept(
    runner, result: Result, others: Sequence[NetworkSpec], corrections: int
) -> tuple[Result, list[Promise] | None, float]:
    """Measure what was found, and correct its widths by that.

    A measurement tells how wrong the table is for one network, and its neighbours differ by more
    than a per cent in that: so several other roundings are measured, side by side.

    Args:
        runner: Its model is the SuperNet of ``result``.
        result: What the table led to.
        others: Networks that are measured beside it.
        corrections: How often, at most.

    Returns:
        Of all that were tried what came nearest to the budget, measured at the table's state; what
        was measured, of it and of the others, if anything could be; and what the table was
        multiplied by.
    """
    model, budget_ms = runner.model, result.spec.provenance['budget_ms']
    tried: list[tuple[Rounding, Promise, float]] = []
    beside, scale, roundings = [], 1.0, [result.rounding]
    while roundings:
        specs = [model.supernet.derive(one.widths) for one in roundings]
        predicted_ms = [one.predicted_ms for one in roundings]
        predicted_ms += map(model.table.predict_ms, others)
        told = [None]
        if runner.rank == 0:
            told = [measure_subnets([*specs, *others], model, predicted_ms)]
        broadcast_object_list(told)
        (promises,) = told
        if not promises:
            break
        tried += [(*pair, scale) for pair in zip(roundings, promises, strict=False)]
        beside = promises[len(roundings) :]
        best, promise, by = min(tried, key=lambda one: _off(one[1], budget_ms))
        if not promise.broken(budget_ms) or not corrections:
            break
        corrections, scale = corrections - 1, by * promise.factor
        known = [one.widths for one, *_ in tried]
        roundings = [one for one in corrected(runner, result, scale) if one.widths not in known]
        if roundings:
            runner.logger.info(
                f'The network takes {promise.at_table_state_ms:.4g} ms where the table says '
                f'{promise.predicted_ms:.4g} ms: its widths are rounded once more, by the table '
                f'times {scale:.3f}, in {len(roundings)} ways, of which the nearest is taken.'
            )
    if not tried:
        return result, None, 1.0
    if best is not result.rounding:
        parts = [runner.train_loop.dataloader.probe(n, 20) for n in ('architecture', 'weights')]
        result = _settled(runner, model, best, budget_ms, *parts, result.finalists)
    return result, [promise, *beside], by


def _off(promise: Promise, budget_ms: float) -> tuple[bool, float]:
    """How far from a budget a network is, the least being the best."""
    took = promise.at_table_state_ms / budget_ms
    return took > 1 + OVER, abs(took - 1)


def measure_subnets(
    specs: Sequence[NetworkSpec], model: ArchitectureSearch, predicted_ms: Sequence[float]
) -> list[Promise] | None:
    """Measure networks, taking turns with references, where the table was measured here.

    Args:
        specs: The networks.
        model: Has the latency table, the space, and the config's ``latency``, whose ``device`` is
            where the table's device should be.
        predicted_ms: Of each.
    """
    table, device = model.table, model.latency.get('device', 'cpu')
    if table.kind != 'measured' or not is_here(table.device, device):
        return None
    space = model.supernet.space
    try:
        return in_a_process(keep, table, space, specs, device, predicted_ms, SECONDS)
    except (PrunetError, OSError) as error:  # no memory, no process, a backend that is gone
        why = str(error) if isinstance(error, PrunetError) else one_line(error)
    # A long search does not end without its report for that.
    print_log(f'The network is not measured: {why}.', logger='current', level=logging.WARNING)
    return None
