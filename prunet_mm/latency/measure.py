"""The one place that times anything: targets visited in shuffled rounds, medians, spreads."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prunet_mm.latency.device import keep_freed_memory

Step = tuple[Hashable, Callable[[Any], Any]]


class Target(NamedTuple):
    """Something to time.

    Attributes:
        steps: Labelled callables, each of which gets the output of the one before it. A model is
            one step; a network whose blocks are timed where they stand is one step per block.
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

    @property
    def uncertainty(self) -> float:
        """Half the width of the median's 95 % confidence interval, relative to the median.

        The notch of a box plot, after *Variations of Box Plots* (McGill et al., 1978).
        """
        return 1.57 * self.iqr_ms / self.samples**0.5 / self.latency_ms


@dataclass(frozen=True)
class Protocol:
    """How long to measure.

    Attributes:
        passes: Timed passes per visit; one that is not timed goes before them.
        min_rounds: Every target is visited that often, however long it takes; at least 2.
        precision: Enough is measured when each median is known this well, relatively (95 %).
        max_seconds: No round starts after this, whatever the precision.
    """

    passes: int = 4
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
    """

    clock: str
    rounds: int = 0
    seconds: float = 0.0
    samples_ms: dict[Hashable, list[float]] = field(default_factory=lambda: defaultdict(list))

    def timing(self, label: Hashable) -> Timing:
        """Median and spread of what carries this label."""
        return Timing.of(self.samples_ms[label])

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the label whose median is known worst."""
        return max(self.timing(label).uncertainty for label in self.samples_ms)


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
) -> Measurement:
    """Times targets in rounds: each visits all of them, in an order of its own.

    So a machine that slows down for a while slows all of them alike, and spoils no comparison.
    Medians are over all rounds.

    Args:
        draw: Returns the targets of a round: the same each time, or new ones.
        protocol: How long to measure.
        stopwatch: What runs and times a target's steps.
        progress: Gets the part that is done, from 0 to 1, after every visit.
        rng: Decides the order of visits.
        clock: Returns seconds.
    """
    rng, result, start = rng or random.Random(0), Measurement(stopwatch.name), clock()
    _warm_up(draw, clock)
    visits = 0
    for result.rounds in count(1):
        targets = list(draw())
        rng.shuffle(targets)
        for target in targets:
            inputs = rng.sample(target.inputs, len(target.inputs))
            stopwatch.laps_ms(target.steps, inputs[-1])
            for index in range(protocol.passes):
                laps_ms = stopwatch.laps_ms(target.steps, inputs[index % len(inputs)])
                for (label, _), lap_ms in zip(target.steps, laps_ms, strict=True):
                    result.samples_ms[label].append(lap_ms)
            visits += 1
            in_rounds = visits / (protocol.min_rounds * len(targets))
            in_time = (clock() - start) / protocol.max_seconds
            progress(min(in_rounds, in_time, 1.0))
        if result.rounds >= protocol.min_rounds and (
            in_time >= 1 or result.uncertainty <= protocol.precision
        ):
            break
    progress(1.0)
    result.seconds = clock() - start
    return result


def _warm_up(draw: Callable[[], Iterable[Target]], clock: Callable[[], float]) -> None:
    """Runs rounds of single passes until one is hardly faster than the one before it."""
    last = float('inf')
    for _ in range(5):
        start = clock()
        for target in draw():
            x = target.inputs[0]
            for _, step in target.steps:
                x = step(x)
        now = clock() - start
        if now > 0.95 * last:
            return
        last = now


@contextmanager
def deployed(device: str, threads: int) -> Iterator[None]:
    """Sets up the process as for inference, with this many threads, and puts it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if device == 'cpu':
        keep_freed_memory()
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
