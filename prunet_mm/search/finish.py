"""From a searched SuperNet to a network that keeps the budget."""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import mmcv
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.logging import print_log

from prunet_mm.engine.checkpoint import save_checkpoint_file
from prunet_mm.errors import ConfigError, one_line
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.backends import require
from prunet_mm.latency.benchmark import measure_networks
from prunet_mm.latency.measure import Timing
from prunet_mm.search.budget import Repair, Row, repair
from prunet_mm.search.model import ArchitectureSearch, is_here
from prunet_mm.search.report import Outcome, pictures, write_report
from prunet_mm.spec import NetworkSpec
from prunet_mm.supernet.statistics import recalibrate

SUBNET = 'subnet.json'


@dataclass(frozen=True)
class Result:
    """What a search ends in.

    Attributes:
        spec: The network.
        repair: How its widths were brought to the budget.
        loss: Task loss on images of the architecture's part, with the SuperNet's own weights.
    """

    spec: NetworkSpec
    repair: Repair
    loss: float


def finish(runner, batches: int = 20) -> Result:
    """Derive the network, repair it to the budget, and recalibrate the SuperNet to it.

    Afterwards the SuperNet is that one network: its widths are settled, and its norms hold the
    statistics of this network on training images without a gradient step. The network is judged
    on images that no weight was trained on.

    Args:
        runner: A runner whose model is an :class:`ArchitectureSearch`.
        batches: Number of batches for the norms' statistics, and for the loss.

    Raises:
        SearchError: No choice of widths keeps the budget.
    """
    model, data = runner.model, runner.train_loop.dataloader
    supernet = model.supernet
    supernet.drop_unaffordable(model.budget.budget_ms)
    supernet.harden()
    supernet.release_widths()
    outcome = settle_widths(model)
    recalibrate(model, data.probe('weights', batches), model.losses)
    if is_distributed():  # each rank has seen images of its own
        all_reduce_params([b for b in model.buffers() if b.is_floating_point()], op='mean')
    model.eval()
    loss = model.task_loss(data.probe('architecture', batches))
    estimated = 'estimated_' if model.table.kind == 'estimated' else ''
    spec = supernet.derive(
        name=f'{supernet.space.name}_{estimated}{outcome.predicted_ms:.4g}ms',
        provenance=dict(
            predicted_ms=round(outcome.predicted_ms, 6),
            budget_ms=model.budget.budget_ms,
            table=model.table.digest,
            latency=model.table.describe(),
            seed=runner.seed,
        ),
    )
    return Result(spec, outcome, loss)


def settle_widths(model: ArchitectureSearch) -> Repair:
    """Round the hidden widths to the grid, repair them to the budget, and set them."""
    supernet = model.supernet
    rows = []
    for name, best, width, learned in supernet.choices():
        block = supernet.layers()[name].candidates[best]
        widths = getattr(block, 'widths', (0,))
        rows.append(Row(name, widths, block.latency_ms.tolist(), learned, widths.index(width)))
    outcome = repair(rows, supernet.fixed_ms, model.budget.budget_ms)
    supernet.set_gap(0.0)
    for row in rows:
        (block,) = supernet.layers()[row.name].candidates.values()
        if getattr(block, 'rule', None):
            block.rule.jump(row.widths[row.index])
            block.fixed_width = row.widths[row.index]
    return outcome


def conclude(runner) -> Result:
    """Finish a search and leave its results in the work dir.

    Written: ``subnet.json``, ``searched.pth`` (the SuperNet, recalibrated to that network), and
    pictures of how it was found, which mmengine's visualizer gets too. The network is measured if
    this is the device of the latency table. A summary goes to the log.
    """
    result = finish(runner)
    if runner.rank != 0:
        return result
    work_dir, model = Path(runner.work_dir), runner.model
    result.spec.save(work_dir / SUBNET)
    save_checkpoint_file(dict(state_dict=model.state_dict()), work_dir / 'searched.pth')
    outcome = Outcome(
        budget_ms=model.budget.budget_ms,
        predicted_ms=result.repair.predicted_ms,
        measured=measure_subnet(result.spec, model.table, model.latency),
        table_kind=model.table.kind,
        table_device=model.table.describe(),
        space=model.supernet.space,
        block_ms=[model.table.block_ms(key) for key in result.spec.block_keys()],
        blocked=result.repair.blocked,
        moves=result.repair.moves,
        derived_loss=result.loss,
        other_size=model.other_size,
        train_config=runner.cfg.get('train_config', 'CONFIG'),
    )
    runner.logger.info(write_report(work_dir, result.spec, outcome))
    for path in pictures(work_dir):
        image = mmcv.imread(path, channel_order='rgb')
        runner.visualizer.add_image(path.stem, image, step=runner.iter)
    return result


def measure_subnet(spec: NetworkSpec, table: LatencyTable, latency: dict) -> Timing | None:
    """Measure a network as the latency table was measured, where that can be done.

    In a process of its own, since what a process did before changes what its memory costs.

    Args:
        spec: The network.
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
            return pool.submit(_measure, spec, *settings).result()
    except BrokenProcessPool:  # killed for its memory, for instance
        why = 'the process that was to do it has died'
    except Exception as error:  # of whatever a backend raises, or that no process can be started
        why = one_line(error)
    # A long search does not end without its report for that.
    print_log(f'The network is not measured: {why}.', logger='current', level=logging.WARNING)
    return None


def _measure(spec: NetworkSpec, *settings) -> Timing:
    return measure_networks([spec], *settings).timing(0)
