"""From a searched SuperNet to a network that keeps the budget."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import mmcv
from mmengine.logging import print_log

from prunet_mm.engine.checkpoint import save_checkpoint_file
from prunet_mm.errors import ConfigError, one_line
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.backends import require
from prunet_mm.latency.benchmark import measure_networks
from prunet_mm.latency.measure import Timing
from prunet_mm.report import PAGE, write_page
from prunet_mm.search.finalists import Finalist, judge_finalists, measure_norms
from prunet_mm.search.frontier import add_to_frontier, read_frontier, write_frontier
from prunet_mm.search.history import FILE_NAME
from prunet_mm.search.model import ArchitectureSearch, is_here
from prunet_mm.search.record import write_asked, write_found
from prunet_mm.search.report import Outcome, pictures, write_report
from prunet_mm.search.rounding import Rounding
from prunet_mm.search.rules import RULES, as_found, latency_ms
from prunet_mm.spec import NetworkSpec

SUBNET = 'subnet.json'
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
    return _become(runner, model, budget_ms, finalists, probe, images)


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
    return _become(runner, model, budget_ms, (finalist,), probe, images)


def _become(runner, model, budget_ms: float, finalists, probe, images) -> Result:
    """Let the SuperNet be the best finalist, for good."""
    supernet, best = model.supernet, finalists[0]
    supernet.settle(best.path)
    for name, layer in supernet.layers().items():
        (block,) = layer.candidates.values()
        if getattr(block, 'rule', None):
            block.rule.jump(best.rounding.widths[name])
            block.fixed_width = best.rounding.widths[name]
    measure_norms(model, images)
    model.eval()
    loss = model.task_loss(probe)
    estimated = 'estimated_' if model.table.kind == 'estimated' else ''
    spec = supernet.derive(
        name=f'{supernet.space.name}_{estimated}{best.rounding.predicted_ms:.4g}ms',
        provenance=dict(
            predicted_ms=round(best.rounding.predicted_ms, 6),
            budget_ms=budget_ms,
            table=model.table.digest,
            latency=model.table.describe(),
            seed=runner.seed,
        ),
    )
    return Result(spec, best.rounding, loss, finalists)


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
    ``report.html``, and pictures of how it was found, which mmengine's visualizer gets too. The
    network is measured if this is the device of the latency table. A summary goes to the log.

    Args:
        runner: Of the search.
        result: What it ends in, where that is known already.
    """
    model = runner.model
    budget_ms = model.budget.budget_ms
    result = result or finish(runner, model, budget_ms)
    if runner.rank != 0:
        return result
    work_dir = Path(runner.work_dir)
    result.spec.save(work_dir / SUBNET)
    save_checkpoint_file(dict(state_dict=model.state_dict()), work_dir / 'searched.pth')
    rows = []
    if len(model.budget.targets_ms) > 1:
        result.spec.save(work_dir / f'subnet_{budget_ms:g}ms.json')
        add_to_frontier(work_dir, budget_ms, result)
        rows = read_frontier(work_dir)
    origin = model.supernet.space.origin
    specs = [result.spec, *(NetworkSpec.load(work_dir / row['subnet']) for row in rows)]
    timings = measure_subnets([*specs, *filter(None, [origin])], model.table, model.latency)
    if rows and timings:
        for row, timing in zip(rows, timings[1 : len(specs)], strict=True):
            row.update(measured_ms=timing.latency_ms, measured_iqr_ms=timing.iqr_ms)
        write_frontier(work_dir, rows)
    outcome = Outcome(
        budget_ms=budget_ms,
        predicted_ms=result.rounding.predicted_ms,
        measured=timings and timings[0],
        origin_ms=model.table.predict_ms(origin) if origin else None,
        measured_origin=timings[-1] if timings and origin else None,
        table_kind=model.table.kind,
        table_device=model.table.describe(),
        space=model.supernet.space,
        block_ms=[model.table.block_ms(key) for key in result.spec.block_keys()],
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


def _with_weights(model: ArchitectureSearch) -> list[str]:
    """The parts of the searched model that have weights, beside the backbone."""
    parts = model.architecture.named_children()
    return [
        name for name, part in parts if name != 'backbone' and any(True for _ in part.parameters())
    ]


def measure_subnets(
    specs: Sequence[NetworkSpec], table: LatencyTable, latency: dict
) -> list[Timing] | None:
    """Measure networks, taking turns, as the table was measured, where that can be done.

    In a process of its own, since what a process did before changes what its memory costs.

    Args:
        specs: The networks.
        table: The latency table of the search.
        latency: The config's ``latency``; its ``device`` is where the table's device should be.
    """
    device = latency.get('device', 'cpu')
    if table.kind != 'measured' or not is_here(table, device):
        return None
    try:
        require([table.backend], device, table.dtype)
    except ConfigError:  # not installed any more
        return None
    settings = device, table.batch, table.threads, table.backend, table.dtype
    try:
        with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
            return pool.submit(_measure, specs, *settings).result()
    except BrokenProcessPool:  # killed for its memory, for instance
        why = 'the process that was to do it has died'
    except Exception as error:  # of whatever a backend raises, or that no process can be started
        why = one_line(error)
    # A long search does not end without its report for that.
    print_log(f'The network is not measured: {why}.', logger='current', level=logging.WARNING)
    return None


def _measure(specs: Sequence[NetworkSpec], *settings) -> list[Timing]:
    measurement = measure_networks(specs, *settings)
    return [measurement.timing(index) for index in range(len(specs))]
