"""The one place that times anything: targets visited in shuffled rounds, medians, spreads."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prunet_mm.latency.backends.base import SelfTimed
from prunet_mm.latency.device import keep_freed_memory
from prunet_mm.latency.intervals import median_interval, relative_half_width

Step = tuple[Hashable, Callable[[Any], Any]]


class Target(NamedTuple):
    """Something to time.

    Attributes:
        steps: Labelled callables, each of which gets the output of the one before it. A model is
            one step; a network whose blocks are timed where they stand is one step per block. What
            is `SelfTimed` is a target of one step.
        inputs: Inputs of the first step, used in turn.
    """

    steps: Sequence[Step]
    inputs: Sequence[Tensor]


class Timing(NamedTuple):
    """What a label took: median and distance between the quartiles in ms, over ``samples``."""

    latency_ms: float
    iqr_ms: float
    samples: int

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Timing:
        """Summarises samples in ms, at least two."""
        low, median, high = statistics.quantiles(samples_ms, n=4, method='inclusive')
        return cls(median, high - low, len(samples_ms))


@dataclass(frozen=True)
class Protocol:
    """How long to measure.

    Attributes:
        passes: Timed passes per visit, fewer where they take more than a tenth of ``max_seconds``;
            one that is not timed goes before them.
        visit_ms: More passes than that where they take less time than this, since the first ones
            find the caches full of what others have left there.
        min_rounds: Every target is visited that often, however long it takes; at least 2.
        precision: Enough is measured when each median is known this well, relatively (95 %).
        max_seconds: No round starts after this, whatever the precision.
    """

    passes: int = 4
    visit_ms: float = 0.0
    min_rounds: int = 3
    precision: float = 0.01
    max_seconds: float = 30.0


@dataclass
class Measurement:
    """What `measure` returns.

    Attributes:
        clock: What the times are of, in words.
        rounds: How often each target was visited after the warm-up.
        seconds: How long it took, warm-up included.
        samples_ms: All samples, by label.
        round_of: The round that each of these samples is of, by label.
    """

    clock: str = ''
    rounds: int = 0
    seconds: float = 0.0
    samples_ms: dict[Hashable, list[float]] = field(default_factory=lambda: defaultdict(list))
    round_of: dict[Hashable, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, label: Hashable, samples_ms: Sequence[float]) -> None:
        """Adds samples of the present round."""
        self.samples_ms[label].extend(samples_ms)
        self.round_of[label].extend([self.rounds] * len(samples_ms))

    def forget(self, label: Hashable) -> None:
        """Drops the label's samples, if it has any."""
        self.samples_ms.pop(label, None)
        self.round_of.pop(label, None)

    def timing(self, label: Hashable) -> Timing:
        """Median and spread of what carries this label."""
        return Timing.of(self.samples_ms[label])

    def medians_ms(self, label: Hashable) -> dict[int, float]:
        """The median of each round in which the label has samples.

        Samples of one visit have the machine's mood in common; those of different rounds do not.
        So it is from these that the median's interval is found.
        """
        rounds = defaultdict(list)
        for number, sample_ms in zip(self.round_of[label], self.samples_ms[label], strict=True):
            rounds[number].append(sample_ms)
        return {number: statistics.median(samples) for number, samples in rounds.items()}

    def interval_ms(self, label: Hashable) -> tuple[float, float]:
        """The interval that has the label's median in it, in 95 of 100 cases."""
        return median_interval(list(self.medians_ms(label).values()))

    def ratio(self, label: Hashable, base: Hashable) -> tuple[float, float, float]:
        """How many times as long as ``base`` the label takes: median, interval's ends.

        Compared round by round, so a drift of the machine, which both have in common, is not in it.
        """
        medians_ms, bases_ms = self.medians_ms(label), self.medians_ms(base)
        ratios = [medians_ms[number] / bases_ms[number] for number in medians_ms.keys() & bases_ms]
        return statistics.median(ratios), *median_interval(ratios)

    def uncertainty_of(self, label: Hashable) -> float:
        """Half the width of the label's interval, relative to its median."""
        return relative_half_width(list(self.medians_ms(label).values()))

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the label whose median is known worst; infinite without samples."""
        return max(map(self.uncertainty_of, self.samples_ms), default=math.inf)


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

    def laps_ms(self, steps: Sequence[Step], x: Tensor) -> list[float]:
        """Runs the steps once, one after the other; returns the time of each in ms."""
        clock = self.clock
        marks = [clock()]
        for _, step in steps:
            x = step(x)
            marks.append(clock())
        return [1e3 * (end - start) for start, end in pairwise(marks)]


class CudaStopwatch:
    """Times steps by events on the GPU's own clock."""

    name = 'CUDA events'

    def laps_ms(self, steps: Sequence[Step], x: Tensor) -> list[float]:
        """Runs the steps once, one after the other; returns the time of each in ms."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
        torch.cuda.synchronize(x.device)
        events[0].record()
        for (_, step), event in zip(steps, events[1:], strict=True):
            x = step(x)
            event.record()
        torch.cuda.synchronize(x.device)
        return [start.elapsed_time(end) for start, end in pairwise(events)]


Stopwatch = CpuStopwatch | CudaStopwatch


def stopwatch_for(device: str, threads: int) -> Stopwatch:
    """The stopwatch of a device, 'cpu', 'cuda' or 'cuda:N'."""
    return CpuStopwatch(threads) if device == 'cpu' else CudaStopwatch()


def measure(
    draw: Callable[[], Iterable[Target]],
    protocol: Protocol,
    stopwatch: Stopwatch,
    progress: Callable[[float], None] = lambda done: None,
    rng: random.Random | None = None,
    clock: Callable[[], float] = time.perf_counter,
    into: Measurement | None = None,
    failed: Callable[[Target, Exception], None] | None = None,
) -> Measurement:
    """Times targets in rounds: each visits all of them, in an order of its own.

    So a machine that slows down for a while slows all of them alike, and spoils no comparison.
    Medians are over all rounds.

    Args:
        draw: Returns the targets of a round: the same each time, or new ones. None end it.
        protocol: How long to measure.
        stopwatch: What runs and times a target's steps.
        progress: Gets the part that is done, from 0 to 1, after every visit.
        rng: Decides the order of visits.
        clock: Returns seconds.
        into: What the samples are added to, so that they are there also where this is interrupted.
        failed: Gets a target that raised an error, and the error; the round goes on without it.
            Without this, the error is raised.
    """
    result = Measurement() if into is None else into
    result.clock, rng, start = stopwatch.name, rng or random.Random(0), clock()
    warm_up(draw, protocol, clock, failed)
    check = protocol.min_rounds
    for number in count(1):
        targets = list(draw())
        if not targets:
            break
        result.rounds += 1
        rng.shuffle(targets)
        for index, target in enumerate(targets, 1):
            try:
                _visit(target, protocol, stopwatch, rng, clock, result)
            except Exception as error:
                if failed is None:
                    raise
                failed(target, error)
            in_rounds = (number - 1 + index / len(targets)) / protocol.min_rounds
            in_time = (clock() - start) / protocol.max_seconds
            progress(min(in_rounds, in_time, 1.0))
        if number >= protocol.min_rounds and in_time >= 1:
            break
        if number >= check:
            # Not after every round, since with the rounds grows what there is to sort.
            check = math.ceil(1.05 * number)
            if result.uncertainty <= protocol.precision:
                break
    progress(1.0)
    result.seconds += clock() - start
    return result


def _visit(
    target: Target,
    protocol: Protocol,
    stopwatch: Stopwatch,
    rng: random.Random,
    clock: Callable[[], float],
    result: Measurement,
) -> None:
    """Runs a target some times in a row, the first time for nothing, and adds its samples."""
    inputs, start = rng.sample(target.inputs, len(target.inputs)), clock()
    label, step = target.steps[0]
    if isinstance(step, SelfTimed):
        result.add(label, step.samples_ms(inputs[0]))
        return
    stopwatch.laps_ms(target.steps, inputs[-1])
    for index in count():
        laps_ms = stopwatch.laps_ms(target.steps, inputs[index % len(inputs)])
        for (label, _), lap_ms in zip(target.steps, laps_ms, strict=True):
            result.add(label, [lap_ms])
        took = clock() - start
        enough = index + 1 >= protocol.passes and 1e3 * took >= protocol.visit_ms
        if enough or took > protocol.max_seconds / 10:
            return


def warm_up(
    draw: Callable[[], Iterable[Target]],
    protocol: Protocol,
    clock: Callable[[], float] = time.perf_counter,
    failed: Callable[[Target, Exception], None] | None = None,
) -> None:
    """Runs rounds of single passes until they get no faster, for at most a fifth of the time.

    Two rounds in a row have to be no faster than the fastest before them: one alone may be slow by
    chance.
    """
    start, fastest, steady = clock(), math.inf, 0
    while steady < 2:
        began = clock()
        for target in list(draw()):
            try:
                _run(target)
            except Exception as error:
                if failed is None:
                    raise
                failed(target, error)
        took = clock() - began
        steady = 0 if took < 0.95 * fastest else steady + 1
        fastest = min(fastest, took)
        if clock() - start > protocol.max_seconds / 5:
            return


def _run(target: Target) -> None:
    x = target.inputs[0]
    for _, step in target.steps:
        if not isinstance(step, SelfTimed):  # warms up by itself
            x = step(x)


@contextmanager
def deployed(device: str, threads: int) -> Iterator[None]:
    """Sets up the process as for inference on a device, with this many threads, and puts it back.

    On a GPU, cuDNN picks the fastest algorithm of each convolution when it first meets it.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.benchmark
    torch.set_num_threads(threads)
    cudnn.benchmark = device != 'cpu'
    if device == 'cpu':
        keep_freed_memory()
    # Events are recorded on the current device, whatever the tensors are on.
    current = nullcontext() if device == 'cpu' else torch.cuda.device(device)
    try:
        with current, torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.benchmark = before[1]
