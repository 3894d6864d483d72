"""Measures the table of a search space, block by block inside of random networks."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import count
from typing import Any

from prunet_mm.latency.chains import anchor_block, blocks, places, random_chains
from prunet_mm.latency.pool import Pool
from prunet_mm.latency.table import Entry, LatencyTable, readable
from prunet_mm.latency.validate import validated
from prunet_mm.spec import BlockKey, NetworkSpec, SearchSpace
from prunet_mm.timing import Settings
from prunet_mm.timing.conditions import conditions, watched
from prunet_mm.timing.device import device_name, software
from prunet_mm.timing.engine import (
    Protocol,
    Stop,
    Stopwatch,
    Target,
    deployed,
    measure,
    stopwatch_for,
)
from prunet_mm.timing.journal import Journal, Visit
from prunet_mm.timing.memory import explained
from prunet_mm.timing.samples import Measurement, drifts, without_drift

# Passes of a visit have the moment in common: fewer of them, in more rounds, say more.
PROTOCOL = Protocol(passes=2)
FIRST = 2  # rounds of blocks alone, after which is known which networks are near a budget
DRAWN = 20  # random networks for each that is timed
FEWEST = 20  # networks, half of which are a test, to stop by it
NEAR = 0.4  # part of a budget within which networks are near it


@dataclass(frozen=True)
class Plan:
    """What is measured, and how: all that may not change when a measurement is taken up again.

    Attributes:
        space: The search space.
        settings: What blocks are run by, and where.
        validate: Random networks of the space that are timed as a whole, between the others: on
            one half overhead and scale are fitted, on the other the prediction is tested. 0
            for neither.
        seed: Decides the networks.
        budgets: Latencies that will be searched for, in ms, or with ``ratios`` as parts of the
            slowest network's: whole networks are drawn near them, since that is where a search
            will look. Without any they are drawn from all of the space.
        ratios: What ``budgets`` are.
    """

    space: SearchSpace
    settings: Settings = field(default_factory=partial(Settings, batch=64))
    validate: int = 30
    seed: int = 0
    budgets: tuple[float, ...] = ()
    ratios: bool = False

    def head(self) -> dict[str, Any]:
        """The plan, and what else decides what a latency is, as JSON."""
        here = dict(device_name=device_name(self.settings.device), software=self.software())
        own = {name: getattr(self, name) for name in ('validate', 'seed', 'ratios')}
        own |= dict(budgets=list(self.budgets))
        return asdict(self.settings) | own | here | dict(space=self.space.to_dict())

    def software(self) -> dict[str, str]:
        """Versions of what runs the blocks."""
        return software(self.settings.device, [self.settings.backend])

    def networks(self, rough: LatencyTable | None = None) -> list[NetworkSpec]:
        """The networks that are timed as a whole: random ones, near the budgets if there are any.

        Args:
            rough: What the first rounds say; only needed to be near a budget.
        """
        rng = random.Random(f'{self.seed}, networks')
        if not self.budgets:
            return [self.space.random(rng) for _ in range(self.validate)]
        budgets_ms, drawn = self.budgets_ms(rough), []
        for _ in range(DRAWN * self.validate):
            spec = self.space.random(rng)
            predicted_ms = rough.predict_ms(spec)
            off = min(abs(predicted_ms / budget_ms - 1) for budget_ms in budgets_ms)
            drawn.append((off, len(drawn), spec))
            near = [one for one in drawn if one[0] <= NEAR]
            if len(near) == self.validate:
                break
        else:  # of a budget where random networks are rare
            near = sorted(drawn)[: self.validate]
        # In the order of drawing, so that the halves for fit and test are alike.
        return [spec for _, _, spec in sorted(near, key=lambda one: one[1])]

    def budgets_ms(self, table: LatencyTable) -> list[float]:
        """The budgets in ms."""
        slowest_ms = table.predict_ms(self.space.largest(table.block_ms)) if self.ratios else 1.0
        return [slowest_ms * budget for budget in self.budgets]

    def chains(self, round_number: int) -> list[list[BlockKey]]:
        """The networks whose blocks are timed in a round: between them they have every block."""
        rng = random.Random(f'{self.seed}, chains of round {round_number}')
        return list(random_chains(places(self.space), rng))

    @cached_property
    def blocks(self) -> list[BlockKey]:
        """The blocks that are measured; the first one takes images."""
        return blocks(places(self.space))


def build_table(
    plan: Plan,
    protocol: Protocol = PROTOCOL,
    journal: str | os.PathLike | None = None,
    fresh: bool = False,
    progress: Callable[[float], None] = lambda done: None,
    stopwatch: Stopwatch | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyTable:
    """Measures the blocks of a space on a device.

    A block is timed where it stands: each round makes random networks that between them have every
    block, and takes the time from block to block. Measured alone, over and over, a block finds its
    weights and its memory in the cache, which in a network others have used since, and the sum over
    a network is too low. For a backend that compiles, each block is a graph of its own; what a
    network saves as one graph is left to the fit to whole networks.

    Args:
        plan: What to measure.
        protocol: How long to measure.
        journal: File that keeps what is measured as it is measured. If there is one of the same
            plan, that measurement goes on. Whoever saves the table deletes it.
        fresh: Start anew whatever there is.
        progress: Gets the part that is done, from 0 to 1.
        stopwatch: What takes the times, for a test.
        clock: Returns seconds, for a test.

    Raises:
        ConfigError: There is no such device or backend here, or the journal is of another plan.
        PrunetError: The journal cannot be read or written; a block on that backend computes
            something else than in eager; there is not enough memory.
    """
    settings = plan.settings
    settings.require()
    protocol = replace(protocol, min_rounds=_first(plan) + protocol.min_rounds)
    stopwatch = stopwatch or stopwatch_for(settings)
    kept = Journal(journal, plan.head(), fresh)
    try:
        with (
            explained(settings.device, settings.batch),
            deployed(settings),
            watched(settings.device) as clocks,
        ):
            stops = _Stops(plan, kept.visits)
            measure(
                stops.draw, protocol, stopwatch, kept, stops.anchor, progress, clock,
                enough=partial(_enough, stops, protocol),
            )  # fmt: skip
    finally:
        kept.close()
    how = dict(clock=stopwatch.name, conditions=conditions(settings.device))
    return _table(
        stops, kept.visits, asdict(protocol) | how | ({'clocks': clocks} if clocks else {})
    )


class _Stops:
    """Where the rounds of a plan stop: at chains of blocks, and between them at whole networks.

    Attributes:
        networks: Those that are timed as a whole; near a budget only when the first rounds have
            told which are.
    """

    def __init__(self, plan: Plan, visits: Sequence[Visit]) -> None:
        self.plan, self.visits, self.pool = plan, visits, Pool(plan.settings)
        self.labels = {key: label for label, key in enumerate(plan.blocks)}
        self.images = self.pool.inputs(plan.blocks[0])
        self.networks: list[NetworkSpec] = []

    def draw(self, round_number: int) -> list[Stop]:
        """The stops of a round.

        In a wide space a round is long and there are few of them. A block's noise is then evened
        out by its neighbours' on the curve; a network has only itself, so it comes several times.
        """
        if self.plan.validate and not self.networks and round_number >= _first(self.plan):
            first = [visit for visit in self.visits if visit.round < FIRST]
            rough = _entries_table(self.plan, Measurement(first)) if self.plan.budgets else None
            self.networks = self.plan.networks(rough)
        chains = self.plan.chains(round_number)
        often = max(1, len(chains) // (2 * len(self.networks) or 1))
        stops = often * [
            self.pool.network(label, spec, self.images)
            for label, spec in enumerate(self.networks, len(self.labels))
        ]
        for chain in chains:
            labels = [self.labels[key] for key in chain]
            stops.append(Stop(labels, partial(self.pool.target, chain, self.images)))
        return stops

    def anchor(self) -> Target:
        """What is timed beside every stop."""
        return self.pool.target([anchor_block(self.plan.space)])


def _first(plan: Plan) -> int:
    """The round from which on whole networks are timed."""
    return FIRST if plan.budgets and plan.validate else 0


def _enough(stops: _Stops, protocol: Protocol, visits: Sequence[Visit]) -> bool:
    """Whether all medians are known, or the table predicts whole networks well enough already."""
    samples = without_drift(visits)
    if samples.uncertainty <= protocol.precision:
        return True
    return stops.plan.validate >= FEWEST and _fitted(stops, samples).validation.good


def _entries_table(plan: Plan, samples: Measurement, **head: Any) -> LatencyTable:
    """The table that samples of blocks make."""
    settings = plan.settings
    entries = [
        Entry(
            **key._asdict(),
            latency_ms=round(timing.latency_ms, 6),
            iqr_ms=round(timing.iqr_ms, 6),
            samples=timing.samples,
        )
        for key, timing in zip(plan.blocks, map(samples.timing, count()), strict=False)
    ]
    return LatencyTable(
        kind='measured',
        device=device_name(settings.device),
        backend=settings.backend,
        dtype=settings.dtype,
        batch=settings.batch,
        threads=settings.threads,
        software=plan.software(),
        date=datetime.date.today().isoformat(),
        entries=entries,
        **(dict(protocol={}) | head),
    )


def _fitted(stops: _Stops, samples: Measurement, **head: Any) -> LatencyTable:
    """The table that samples make, held against whole networks."""
    plan, table = stops.plan, _entries_table(stops.plan, samples, **head)
    labels = range(len(plan.blocks), len(plan.blocks) + len(stops.networks))
    networks_ms = [samples.timing(label).latency_ms for label in labels]
    table = validated(table, stops.networks, networks_ms)
    if not plan.budgets or table.validation is None:
        return table
    near = dict(near_ms=tuple(plan.budgets_ms(table)))
    return table.model_copy(update=dict(validation=table.validation.model_copy(update=near)))


def _table(stops: _Stops, visits: Sequence[Visit], protocol: dict[str, Any]) -> LatencyTable:
    """The table that the visits make."""
    samples, drift = without_drift(visits), drifts(visits)
    seconds = [visit.seconds for visit in visits]
    waited = sum(visit.waited * visit.seconds for visit in visits) / (sum(seconds) or 1.0)
    how = dict(
        timed='block by block, inside of random networks; convolutions and norms folded',
        statistic='median',
        rounds=samples.rounds,
        seconds=round(sum(seconds), 1),
        sessions=1 + visits[-1].session,
        anchor=readable(anchor_block(stops.plan.space)),
        drift_divided_out=[round(float(end), 4) for end in (drift.min(), drift.max())],
        waited_for_a_core=round(waited, 4),
    )
    return _fitted(stops, samples, protocol=how | protocol)
