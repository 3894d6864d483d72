"""Times the targets of a long measurement in rounds that can be interrupted and taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from prunet_mm.latency.backends.base import SelfTimed
from prunet_mm.latency.drift import without_drift
from prunet_mm.latency.journal import Journal, Visit
from prunet_mm.latency.measure import Protocol, Stopwatch, Target, warm_up

WARM_UP_STOPS = 10


class Stop(NamedTuple):
    """One stop of a round.

    Attributes:
        labels: What is timed there: indices of labels, a chain of blocks or one network.
        target: Prepares that; called anew for each visit.
    """

    labels: list[int]
    target: Callable[[], Target]


def measure_rounds(
    draw: Callable[[int], Sequence[Stop]],
    anchor: Callable[[], Target],
    journal: Journal,
    protocol: Protocol,
    stopwatch: Stopwatch,
    progress: Callable[[float], None] = lambda done: None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Visits stop after stop, round after round, and writes each visit down in the journal.

    Whatever the journal has already is not measured again: its rounds and seconds count.

    Args:
        draw: Returns the stops of a round, in their order: always the same ones for a number.
        anchor: Prepares what is timed after every pass, whatever the target, so that later
            `drift.drifts` finds how fast the machine was.
        journal: Gets the visits.
        protocol: How long to measure, over all sessions.
        stopwatch: What runs and times a target's steps.
        progress: Gets the part that is done, from 0 to 1, after every visit.
        clock: Returns seconds.
    """
    beside, seconds = anchor(), sum(visit.seconds for visit in journal.visits)
    warm, check = False, protocol.min_rounds
    first_round, first_index = _next(journal)
    for number in count(first_round):
        stops = draw(number)
        for index in range(first_index if number == first_round else 0, len(stops)):
            if not warm:
                targets = [stop.target() for stop in stops[index : index + WARM_UP_STOPS]]
                warm_up(lambda targets=targets: [*targets, beside], protocol, clock)
                warm = True
            began = clock()
            times = _visit(stops[index].target(), beside, protocol.passes, stopwatch, index)
            took = clock() - began
            seconds += took
            visit = Visit(journal.session, number, index, took, stops[index].labels, *times)
            journal.add(visit)
            in_rounds = (number + (index + 1) / len(stops)) / protocol.min_rounds
            progress(min(in_rounds, seconds / protocol.max_seconds, 1.0))
        if number + 1 >= protocol.min_rounds and seconds >= protocol.max_seconds:
            break
        if number + 1 >= check:
            # Not after every round, since with the rounds grows what there is to sort.
            check = math.ceil(1.05 * (number + 1))
            if without_drift(journal.visits).uncertainty <= protocol.precision:
                break
    progress(1.0)


def _next(journal: Journal) -> tuple[int, int]:
    """Where to go on: round and index of the stop behind the last one that was visited."""
    if not journal.visits:
        return 0, 0
    return journal.visits[-1].round, journal.visits[-1].index + 1


def _visit(
    target: Target, anchor: Target, passes: int, stopwatch: Stopwatch, turn: int
) -> tuple[list[list[float]], list[float]]:
    """Runs a target some times in a row, the first time for nothing, and the anchor in between.

    The number ``turn`` says which of the inputs comes first. Returns (passes, steps) times of the
    target in ms, and (passes,) of the anchor.
    """
    if isinstance(target.steps[0][1], SelfTimed):
        laps_ms = [_passes_ms(step, target.inputs[0], passes) for _, step in target.steps]
        ((_, step),) = anchor.steps
        return np.transpose(laps_ms).tolist(), _passes_ms(step, anchor.inputs[0], passes)
    laps_ms, anchor_ms = [], []
    stopwatch.laps_ms(target.steps, target.inputs[turn % len(target.inputs)])
    for number in range(turn + 1, turn + 1 + passes):
        laps_ms.append(stopwatch.laps_ms(target.steps, target.inputs[number % len(target.inputs)]))
        anchor_ms += stopwatch.laps_ms(anchor.steps, anchor.inputs[number % len(anchor.inputs)])
    return laps_ms, anchor_ms


def _passes_ms(step: SelfTimed, x: Any, passes: int) -> list[float]:
    """That many samples in ms with about the median and the spread of all that it took."""
    parts = (np.arange(passes) + 0.5) / passes
    return np.quantile(step.samples_ms(x), parts).tolist()
