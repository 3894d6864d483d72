"""Does a network keep what its table promised? Measured among networks that the table knows.

A latency now is not one of the table's day: clocks differ, and a lone network finds more of itself
in the caches than it did among the many of a table. So it takes turns with *references*: networks
whose latency at the table's state is known, since they were timed as a whole beside its blocks. In
each round they tell how slow the machine is, and so what the network would have taken then,

    latency at the table's state = network now / median of (reference now / reference then),

of which the median over the rounds is taken, with its interval: what the network itself does from
round to round is in it. Drift within a round is divided out, by the anchor.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from prunet_mm.latency.chains import anchor_block
from prunet_mm.latency.table import LatencyTable
from prunet_mm.spec import NetworkSpec, SearchSpace
from prunet_mm.timing.journal import Visit
from prunet_mm.timing.samples import Measurement, Timing, median_interval, without_drift

REFERENCES = 15  # beside the slowest network of the space; with fewer they disagree too widely
KNOWN = 0.005  # half of an interval, as a share of the latency, with which that is known well
OVER = 0.01  # share by which a network may be above its budget
CLOSE = 0.02  # share by which a measurement may be off the prediction before that is acted upon


@dataclass(frozen=True)
class Reference:
    """A network whose latency at a table's state is known.

    Attributes:
        spec: The network.
        then_ms: What it took when the table was made, or what the table predicts.
        measured: Which of the two that is.
    """

    spec: NetworkSpec
    then_ms: float
    measured: bool = True


@dataclass(frozen=True)
class Promise:
    """What was measured of a network, beside its prediction.

    Attributes:
        predicted_ms: By the table.
        measured_ms: Median now.
        iqr_ms: Distance between the quartiles of the samples.
        samples: How many there are.
        state: How slow the machine is, relative to the table's day, by the references.
        state_interval: The interval that has it in it, in 95 of 100 cases.
        at_table_state_ms: The network's latency at the table's state, which a budget is of.
        interval_ms: The interval that has that in it.
        waited: The part of its time that the network waited for a core that others had.
    """

    predicted_ms: float
    measured_ms: float
    iqr_ms: float
    samples: int
    state: float
    state_interval: tuple[float, float]
    at_table_state_ms: float
    interval_ms: tuple[float, float]
    waited: float = 0.0

    @property
    def timing(self) -> Timing:
        """The measurement of now."""
        return Timing(self.measured_ms, self.iqr_ms, self.samples)

    @property
    def factor(self) -> float:
        """By what the table is off for this network."""
        return self.at_table_state_ms / self.predicted_ms

    def broken(self, budget_ms: float) -> bool:
        """Whether the prediction is off by more than noise and `CLOSE`, or the budget exceeded."""
        low, high = self.interval_ms
        off = abs(self.factor - 1) > CLOSE and not low <= self.predicted_ms <= high
        return off or (low > budget_ms and self.at_table_state_ms > budget_ms * (1 + OVER))

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    def sentences(self, budget_ms: float) -> list[str]:
        """What it says, for people."""
        low, high = self.interval_ms
        lines = [
            f'The machine takes {self.state:.3f} times as long as on the day of the table '
            f'({_ends(self.state_interval)}; by the references that took turns with the network).',
            f"At the table's state the network takes {self.at_table_state_ms:.4f} ms "
            f'({_ends((low, high))}), {self.factor:.1%} of the predicted and '
            f'{self.at_table_state_ms / budget_ms:.1%} of the budget.',
        ]
        if not low <= self.predicted_ms <= high:
            lines.append('That is off the prediction by more than its interval: the table errs.')
        if self.waited > CLOSE:
            lines.append(
                f'It waited for a core {self.waited:.0%} of its time, since others had it: measure '
                'again on an idle machine (tools/search.py --derive-only).'
            )
        return lines


def references(table: LatencyTable, space: SearchSpace, near_ms: float) -> list[Reference]:
    """Networks around a latency, and the slowest one of the space.

    They are the table's own, which were timed when it was made; where it has none (older ones do
    not keep them) random ones stand in, with what it predicts for them.
    """
    found = table.validation
    if found and found.networks:
        known = [Reference(*pair) for pair in zip(found.networks, found.measured_ms, strict=True)]
    else:
        rng = random.Random('references')
        specs = [space.random(rng) for _ in range(20 * REFERENCES)]
        known = [Reference(spec, table.predict_ms(spec), False) for spec in specs]
    known.sort(key=lambda one: abs(one.then_ms / near_ms - 1))
    slowest = space.largest(table.block_ms)
    return [*known[:REFERENCES], Reference(slowest, table.predict_ms(slowest), False)]


def judge(
    now: Measurement,
    steady: Measurement,
    predicted_ms: Sequence[float],
    known: Sequence[Reference],
) -> list[Promise]:
    """What samples say of networks.

    Args:
        now: Labels count the networks first, then the references.
        steady: The same samples, without drift.
        predicted_ms: Of each network.
        known: The references.
    """
    # What the table only predicts counts where it was all there is.
    counted = [n for n, one in enumerate(known) if one.measured] or range(len(known))
    then_ms = {len(predicted_ms) + n: known[n].then_ms for n in counted}
    state_interval = median_interval(list(_states(now, then_ms).values()))
    states, promises = _states(steady, then_ms), []
    for index, expected_ms in enumerate(predicted_ms):
        medians_ms, timing = steady.medians_ms(index), now.timing(index)
        at_table_state_ms = [medians_ms[n] / states[n] for n in medians_ms.keys() & states]
        promises.append(
            Promise(
                expected_ms,
                *timing,
                timing.latency_ms / statistics.median(at_table_state_ms),
                state_interval,
                statistics.median(at_table_state_ms),
                median_interval(at_table_state_ms),
                now.waited(index),
            )
        )
    return promises


def _states(found: Measurement, then_ms: Mapping[int, float]) -> dict[int, float]:
    """How slow the machine was in each round, relative to when the references took ``then_ms``."""
    rounds = defaultdict(list)
    for label, ms in then_ms.items():
        for number, now_ms in found.medians_ms(label).items():
            rounds[number].append(now_ms / ms)
    return {number: statistics.median(ratios) for number, ratios in rounds.items()}


def keep(
    table: LatencyTable,
    space: SearchSpace,
    specs: Sequence[NetworkSpec],
    device: str,
    predicted_ms: Sequence[float],
    max_seconds: float,
) -> list[Promise]:
    """Measures networks in turn with references, as the table was measured.

    Args:
        table: Of this device.
        space: Which the networks are of.
        specs: The networks, the first of which references are chosen around.
        device: Where, 'cpu', 'cuda' or 'cuda:N'.
        predicted_ms: Of each network.
        max_seconds: Measure about this long at most, less where all are known well.

    Raises:
        ConfigError: Device or backend are not here.
        PrunetError: A network cannot be run so.
    """
    from prunet_mm.latency.build import PROTOCOL  # not above, since these import torch
    from prunet_mm.latency.pool import Pool
    from prunet_mm.timing.engine import deployed, measure, stopwatch_for
    from prunet_mm.timing.memory import explained

    settings = table.settings(device)
    settings.require()
    known = references(table, space, predicted_ms[0])
    with explained(device, settings.batch), deployed(settings):
        pool = Pool(settings)
        images = pool.inputs(specs[0].block_keys()[0])
        networks = [*specs, *(one.spec for one in known)]
        stops = [pool.network(label, spec, images) for label, spec in enumerate(networks)]

        def judged(visits: Sequence[Visit]) -> list[Promise]:
            return judge(Measurement(visits), without_drift(visits), predicted_ms, known)

        def enough(visits: Sequence[Visit]) -> bool:
            return all(
                high - low <= 2 * KNOWN * one.at_table_state_ms
                for one in judged(visits)
                for low, high in [one.interval_ms]
            )

        # The anchor is what stood between the passes on the table's day, too.
        return judged(
            measure(
                lambda number: stops,
                replace(PROTOCOL, min_rounds=8, max_seconds=max_seconds),
                stopwatch_for(settings),
                anchor=lambda: pool.target([anchor_block(space)]),
                enough=enough,
            )
        )


def _ends(interval: tuple[float, float]) -> str:
    low, high = interval
    return 'how well is not known' if high - low == float('inf') else f'{low:.4g} to {high:.4g}'


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if abs(value) != float('inf') else None
    return value
