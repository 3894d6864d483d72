"""The one place that times anything: stops visited in shuffled rounds, every visit written down."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prunet_mm.timing.device import keep_freed_memory
from prunet_mm.timing.journal import Journal, Visit
from prunet_mm.timing.memory import failing_allocations
from prunet_mm.timing.samples import Measurement, without_drift
from prunet_mm.timing.settings import Settings

WARM_UP_STOPS = 10
LONG = 1.0  # seconds of a visit after which fewer passes do

Step = Callable[[Any], Any]


class Target(NamedTuple):
    """Something to time.

    Attributes:
        steps: Callables, each of which gets the output of the one before it. A model is one step;
            a network whose blocks are timed where they stand is one step per block.
        inputs: Inputs of the first step, used in turn.
    """

    steps: Sequence[Step]
    inputs: Sequence[Any]


class Stop(NamedTuple):
    """One stop of a round.

    Attributes:
        labels: What is timed there, a label per step of the target.
        target: Prepares that; called anew for each visit.
    """

    labels: Sequence[Hashable]
    target: Callable[[], Target]


@dataclass(frozen=True)
class Protocol:
    """How long to measure.

    Attributes:
        passes: Timed passes per visit, fewer where they take long; one that is not timed goes
            before them.
        visit_ms: More passes than that where they take less time than this, since the first ones
            find the caches full of what others have left there.
        min_rounds: Every stop is visited that often, however long it takes; at least 2.
        precision: Enough is measured when each median is known this well, relatively (95 %).
        max_seconds: No round starts after this, whatever the precision.
    """

    passes: int = 4
    visit_ms: float = 0.0
    min_rounds: int = 3
    precision: float = 0.01
    max_seconds: float = 30.0

    def reached(self, visits: Sequence[Visit]) -> bool:
        """Whether all medians are known well enough, drift taken out where there is an anchor."""
        anchored = all(visit.anchor_ms for visit in visits)
        found = without_drift(visits) if anchored else Measurement(visits)
        return found.uncertainty <= self.precision


class CpuStopwatch:
    """Times steps on the CPU.

    Args:
        threads: With one, its processor time is taken: the same as time on an idle machine, and
            free of the slices that other programs take on a busy one. With several, what counts
            is the time that passes.
        clock: Returns seconds, for a test.
    """

    def __init__(self, threads: int = 1, clock: Callable[[], float] | None = None) -> None:
        self.name = 'processor time of the thread' if threads == 1 else 'wall clock'
        self.clock = clock or (time.thread_time if threads == 1 else time.perf_counter)

    def laps_ms(self, steps: Sequence[Step], x: Any) -> list[float]:
        """Runs the steps once, one after the other; returns the time of each in ms."""
        clock = self.clock
        marks = [clock()]
        for step in steps:
            x = step(x)
            marks.append(clock())
        return [1e3 * (end - start) for start, end in pairwise(marks)]


class CudaStopwatch:
    """Times steps by events on the GPU's own clock.

    Args:
        device: 'cuda' or 'cuda:N'. What steps return may be anything.
    """

    name = 'CUDA events'

    def __init__(self, device: str) -> None:
        self.device = device

    def laps_ms(self, steps: Sequence[Step], x: Any) -> list[float]:
        """Runs the steps once, one after the other; returns the time of each in ms."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
        torch.cuda.synchronize(self.device)
        events[0].record()
        for step, event in zip(steps, events[1:], strict=True):
            x = step(x)
            event.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) for start, end in pairwise(events)]


Stopwatch = CpuStopwatch | CudaStopwatch


def stopwatch_for(settings: Settings) -> Stopwatch:
    """The stopwatch of a device."""
    if settings.device == 'cpu':
        return CpuStopwatch(settings.threads)
    return CudaStopwatch(settings.device)


def measure(
    draw: Callable[[int], Sequence[Stop]],
    protocol: Protocol,
    stopwatch: Stopwatch,
    journal: Journal | None = None,
    anchor: Callable[[], Target] | None = None,
    progress: Callable[[float], None] = lambda done: None,
    clock: Callable[[], float] = time.perf_counter,
    failed: Callable[[Stop, Exception], None] | None = None,
    enough: Callable[[Sequence[Visit]], bool] | None = None,
) -> list[Visit]:
    """Visits stops in rounds, each in an order of its own, and writes each visit down.

    So a machine that slows down for a while slows all of them alike, and spoils no comparison.
    Whatever the journal has already is not measured again: its rounds and seconds count.

    Args:
        draw: Returns the stops of a round, always the same ones for a number. None end it.
        protocol: How long to measure, over all sessions.
        stopwatch: What runs and times a target's steps.
        journal: Gets the visits, so that they are there also where this is interrupted.
        anchor: Prepares what is timed after every pass, whatever the target, so that later
            `samples.drifts` finds how fast the machine was.
        progress: Gets the part that is done, from 0 to 1, after every visit.
        clock: Returns seconds.
        failed: Gets a stop that raised an error, and the error; the round goes on without it, and
            later ones should. Without this, the error is raised.
        enough: Tells from the visits whether to stop; by default `Protocol.reached`.

    Returns:
        All visits of the journal.
    """
    journal = Journal(None, {}) if journal is None else journal
    beside, enough = anchor and anchor(), enough or protocol.reached
    seconds = sum(visit.seconds for visit in journal.visits)
    first_round, first_index, warm, check = *_next(journal), False, protocol.min_rounds
    for number in count(first_round):
        stops = list(draw(number))
        random.Random(f'order of round {number}').shuffle(stops)
        if not stops:
            break
        for index in range(first_index if number == first_round else 0, len(stops)):
            stop, began = stops[index], clock()
            waiting = Waiting()
            try:
                if not warm:
                    warm = True
                    _warm_up(stops[index : index + WARM_UP_STOPS], beside, protocol, clock)
                    waiting, began = Waiting(), clock()
                times = _visit(stop.target(), beside, protocol, stopwatch, index, clock)
            except Exception as error:
                if failed is None:
                    raise
                failed(stop, error)
                continue
            took = clock() - began
            seconds += took
            where = journal.session, number, index, took
            journal.add(Visit(*where, list(stop.labels), *times, waiting.share()))
            in_rounds = (number + (index + 1) / len(stops)) / protocol.min_rounds
            progress(min(in_rounds, seconds / protocol.max_seconds, 1.0))
        if number + 1 >= protocol.min_rounds and seconds >= protocol.max_seconds:
            break
        if number + 1 >= check:
            # Not after every round, since with the rounds grows what there is to sort.
            check = math.ceil(1.05 * (number + 1))
            if journal.visits and enough(journal.visits):
                break
    progress(1.0)
    return journal.visits


def _next(journal: Journal) -> tuple[int, int]:
    """Where to go on: round and index of the stop behind the last one that was visited."""
    if not journal.visits:
        return 0, 0
    return journal.visits[-1].round, journal.visits[-1].index + 1


def _visit(
    target: Target,
    anchor: Target | None,
    protocol: Protocol,
    stopwatch: Stopwatch,
    turn: int,
    clock: Callable[[], float],
) -> tuple[list[list[float]], list[float]]:
    """Runs a target some times in a row, the first time for nothing, and the anchor in between.

    The number ``turn`` says which of the inputs comes first. Returns (passes, steps) times of the
    target in ms, and (passes,) of the anchor.
    """

    def run(what: Target, number: int) -> list[float]:
        return stopwatch.laps_ms(what.steps, what.inputs[(turn + number) % len(what.inputs)])

    laps_ms, anchor_ms, start, took = [], [], clock(), 0.0
    run(target, 0)
    while len(laps_ms) < protocol.passes or 1e3 * took < protocol.visit_ms:
        laps_ms.append(run(target, len(laps_ms) + 1))
        if anchor is not None:
            anchor_ms += run(anchor, len(laps_ms))
        took = clock() - start
        if took > max(LONG, protocol.max_seconds / 10):
            break
    return laps_ms, anchor_ms


def _warm_up(
    stops: Sequence[Stop], anchor: Target | None, protocol: Protocol, clock: Callable[[], float]
) -> None:
    """Runs rounds of single passes until they get no faster, for at most a fifth of the time.

    Two rounds in a row have to be no faster than the fastest before them: one alone may be slow by
    chance. What fails here fails again at its visit, which tells whom.
    """
    targets = [] if anchor is None else [anchor]
    for stop in stops:
        try:
            _run(target := stop.target())
        except Exception:
            continue
        targets.append(target)
    start, fastest, steady = clock(), math.inf, 0
    while steady < 2 and clock() - start <= protocol.max_seconds / 5:
        began = clock()
        for target in list(targets):
            try:
                _run(target)
            except Exception:
                targets.remove(target)
        took = clock() - began
        steady = 0 if took < 0.95 * fastest else steady + 1
        fastest = min(fastest, took)


def _run(target: Target) -> None:
    x = target.inputs[0]
    for step in target.steps:
        x = step(x)


class Waiting:
    """How long the threads of this process wait for a core that others have, as Linux counts it."""

    def __init__(self, root: Path = Path('/proc/self/task')) -> None:
        self.root = root
        self.start = self._now()

    def share(self) -> float:
        """Time waited since the start, over time waited and run; 0 where the system is silent."""
        ran, waited = (max(0, b - a) for a, b in zip(self.start, self._now(), strict=True))
        return round(waited / (ran + waited), 4) if waited else 0.0

    def _now(self) -> tuple[int, int]:
        ran = waited = 0
        for path in self.root.glob('*/schedstat'):
            try:
                first, second, *_ = path.read_text().split()
            except (OSError, ValueError):  # it has ended meanwhile
                continue
            ran, waited = ran + int(first), waited + int(second)
        return ran, waited


@contextmanager
def deployed(settings: Settings) -> Iterator[None]:
    """Sets up the process as for inference by these settings, and puts it back.

    On a GPU, cuDNN picks the fastest algorithm of each convolution when it first meets it. On a
    CPU, allocations fail where the system would kill the process for them.
    """
    cudnn, on_cpu = torch.backends.cudnn, settings.device == 'cpu'
    before = torch.get_num_threads(), cudnn.benchmark
    torch.set_num_threads(settings.threads)
    cudnn.benchmark = not on_cpu
    if on_cpu:
        keep_freed_memory()
    # Events are recorded on the current device, whatever the tensors are on.
    current = nullcontext() if on_cpu else torch.cuda.device(settings.device)
    try:
        with current, torch.inference_mode(), failing_allocations(settings.device):
            yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.benchmark = before[1]
