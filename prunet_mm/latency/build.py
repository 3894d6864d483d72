"""Measures the table of a search space, block by block inside of random networks."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.latency.backends import BACKENDS
from prunet_mm.latency.benchmark import NO_MEMORY
from prunet_mm.latency.chains import MOST, anchor_block, blocks, places, random_chains
from prunet_mm.latency.conditions import conditions
from prunet_mm.latency.device import device_name, require_device, software
from prunet_mm.latency.drift import drifts, without_drift
from prunet_mm.latency.journal import Journal, Visit
from prunet_mm.latency.measure import Protocol, Stopwatch, Target, deployed, stopwatch_for
from prunet_mm.latency.memory import failing_allocations
from prunet_mm.latency.pool import Pool
from prunet_mm.latency.rounds import Stop, measure_rounds
from prunet_mm.latency.table import Entry, LatencyTable, readable
from prunet_mm.latency.validate import validated
from prunet_mm.spec import BlockKey, NetworkSpec, SearchSpace

PROTOCOL = Protocol()


@dataclass(frozen=True)
class Plan:
    """What is measured, and how: all that may not change when a measurement is taken up again.

    Attributes:
        space: The search space.
        device: 'cpu', 'cuda' or 'cuda:N'.
        backend: A name in `BACKENDS`.
        dtype: What the backend computes in.
        batch: Images per pass.
        threads: CPU threads.
        widths: The part of each candidate's hidden widths that is measured, spread evenly from the
            smallest to the largest, which always are; 1 for all.
        validate: Random networks of the space that are timed as a whole, between the others: on
            one half overhead and scale are fitted, on the other the prediction is tested. 0
            for neither.
        seed: Decides the networks.
    """

    space: SearchSpace
    device: str = 'cpu'
    backend: str = 'eager'
    dtype: str = 'float32'
    batch: int = 64
    threads: int = 1
    widths: float = MOST
    validate: int = 30
    seed: int = 0

    def require(self) -> None:
        """Raises a `ConfigError` unless device and backend are there, and fit together."""
        require_device(self.device)
        if self.backend not in BACKENDS:
            raise ConfigError(f'no backend {self.backend!r}, known are {", ".join(BACKENDS)}')
        BACKENDS[self.backend].require(self.device, self.dtype)

    def head(self) -> dict[str, Any]:
        """The plan, and what else decides what a latency is, as JSON."""
        plan = {field.name: getattr(self, field.name) for field in fields(self)}
        here = dict(device_name=device_name(self.device), software=self.software())
        return plan | here | dict(space=self.space.to_dict())

    def software(self) -> dict[str, str]:
        """Versions of what runs the blocks."""
        return software(self.device, [self.backend])

    def networks(self) -> list[NetworkSpec]:
        """The networks that are timed as a whole."""
        rng = random.Random(f'{self.seed}, networks')
        return [self.space.random(rng) for _ in range(self.validate)]

    def chains(self, round_number: int) -> list[list[BlockKey]]:
        """The networks whose blocks are timed in a round: between them they have every block."""
        rng = random.Random(f'{self.seed}, chains of round {round_number}')
        return list(random_chains(places(self.space, self.widths), rng))

    def blocks(self) -> list[BlockKey]:
        """The blocks that are measured; the first one takes images."""
        return blocks(places(self.space, self.widths))


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
    plan.require()
    stopwatch = stopwatch or stopwatch_for(plan.device, plan.threads)
    kept = Journal(journal, plan.head(), fresh)
    try:
        with deployed(plan.device, plan.threads), failing_allocations(plan.device):
            stops = _Stops(plan)
            measure_rounds(stops.draw, stops.anchor, kept, protocol, stopwatch, progress, clock)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            raise PrunetError(
                f'{plan.device} is out of memory: measure with a batch below {plan.batch}'
            ) from error
        raise
    finally:
        kept.close()
    how = dict(clock=stopwatch.name, conditions=conditions(plan.device))
    return _table(plan, kept.visits, asdict(protocol) | how)


class _Stops:
    """Where the rounds of a plan stop: at chains of blocks, and between them at whole networks."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.networks = plan, plan.networks()
        backend = BACKENDS[plan.backend](plan.device, plan.threads)
        self.pool = Pool(backend, plan.dtype, plan.batch)
        self.labels = {key: label for label, key in enumerate(plan.blocks())}
        self.images = self.pool.inputs(next(iter(self.labels)))

    def draw(self, round_number: int) -> list[Stop]:
        """The stops of a round, in their order."""
        stops = [
            Stop([len(self.labels) + index], partial(self._network, index))
            for index in range(len(self.networks))
        ]
        stops += [
            Stop([self.labels[key] for key in chain], partial(self._chain, chain))
            for chain in self.plan.chains(round_number)
        ]
        random.Random(f'{self.plan.seed}, order of round {round_number}').shuffle(stops)
        return stops

    def anchor(self) -> Target:
        """What is timed beside every stop."""
        key = anchor_block(self.plan.space)
        return Target([(key, self.pool.block(key))], self.pool.inputs(key))

    def _chain(self, keys: Sequence[BlockKey]) -> Target:
        return Target([(key, self.pool.block(key)) for key in keys], self.images)

    def _network(self, index: int) -> Target:
        return Target([(index, self.pool.network(index, self.networks[index]))], self.images)


def _table(plan: Plan, visits: Sequence[Visit], protocol: dict[str, Any]) -> LatencyTable:
    """The table that the visits make."""
    samples, drift = without_drift(visits), drifts(visits)
    keys = plan.blocks()
    timings = [samples.timing(label) for label in range(len(keys) + plan.validate)]
    table = LatencyTable(
        kind='measured',
        device=device_name(plan.device),
        backend=plan.backend,
        dtype=plan.dtype,
        batch=plan.batch,
        threads=plan.threads,
        software=plan.software(),
        date=datetime.date.today().isoformat(),
        protocol=dict(
            timed='block by block, inside of random networks; convolutions and norms folded',
            statistic='median',
            rounds=samples.rounds,
            seconds=round(sum(visit.seconds for visit in visits), 1),
            sessions=1 + visits[-1].session,
            anchor=readable(anchor_block(plan.space)),
            drift_divided_out=[round(float(end), 4) for end in (drift.min(), drift.max())],
            **protocol,
        ),
        entries=[
            Entry(
                **key._asdict(),
                latency_ms=round(timing.latency_ms, 6),
                iqr_ms=round(timing.iqr_ms, 6),
                samples=timing.samples,
            )
            for key, timing in zip(keys, timings, strict=False)
        ],
    )
    return validated(table, plan.networks(), [one.latency_ms for one in timings[len(keys) :]])
