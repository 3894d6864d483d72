"""How far a latency can be trusted: the same network twice in one run, and torch's own timer.

    python benchmarks/repeatability.py [TARGET ...] [--runs 20] [--threads 1]

In each run the network is in a comparison twice, and how far the two medians are apart is the error
of a comparison of two networks that are equally fast. In a second comparison it takes turns with
`torch.utils.benchmark.Timer`, by the clock that ours are timed by and by its own, which goes on
while a busy machine computes something else. For an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from prunet_mm.engine.files import write_atomic
from prunet_mm.latency.backends import BACKENDS
from prunet_mm.latency.backends.base import SelfTimed
from prunet_mm.latency.backends.eager import Eager
from prunet_mm.latency.benchmark import PROTOCOL, Benchmark
from prunet_mm.latency.conditions import conditions
from prunet_mm.latency.device import device_name, software
from prunet_mm.latency.measure import CpuStopwatch
from prunet_mm.latency.targets import Subject, load_target

TARGETS = ['configs/cls/prunet_digits.json', 'timm:mobilenetv3_small_100', 'prunet_p0']
RESULT = Path(__file__).parent / 'results/repeatability.json'
BARS = dict(twice=0.02, timer=0.03)
SECONDS = 0.05  # of one visit of torch's timer


class Timed(SelfTimed):
    """A callable that torch's timer times, by its own clock or another one."""

    def __init__(self, call: Callable, threads: int, clock: dict[str, Callable]) -> None:
        self.call, self.threads, self.clock = call, threads, clock

    def __call__(self, x: Any) -> Any:
        return self.call(x)

    def samples_ms(self, x: Any) -> list[float]:
        names = dict(call=self.call, x=x)
        timer = Timer('call(x)', globals=names, num_threads=self.threads, **self.clock)
        return [1e3 * time for time in timer.blocked_autorange(min_run_time=SECONDS).times]


class OwnClock(Eager):
    """Eager, timed by torch's timer as it is."""

    name = 'timer, own clock'

    def prepare(self, model: torch.nn.Module, inputs: Sequence, dtype: torch.dtype) -> Timed:
        return Timed(super().prepare(model, inputs, dtype), self.threads, self.clock())

    def clock(self) -> dict[str, Callable]:
        """What the timer is told of a clock."""
        return {}


class SameClock(OwnClock):
    """Eager, timed by torch's timer by the clock that ours are timed by."""

    name = 'timer, same clock'

    def clock(self) -> dict[str, Callable]:
        return dict(timer=CpuStopwatch(self.threads).clock)


TIMERS = {backend.name: backend for backend in (SameClock, OwnClock)}


def run(subject: Subject, threads: int, max_seconds: float) -> dict:
    """One run on the CPU: how far the network is from itself, and torch's timer from ours."""
    protocol = replace(PROTOCOL, max_seconds=max_seconds)
    pair = Benchmark([subject, subject], threads=threads)
    beside = Benchmark([subject], backends=['eager', *TIMERS], threads=threads)
    for bench in (pair, beside):
        bench.run(protocol)
        if errors := [job.error for job in bench.jobs if job.error]:
            raise SystemExit(errors[0])
    first_ms, second_ms = (pair.measurement.timing(index).latency_ms for index in (0, 1))
    ratios = [beside.measurement.ratio(index, 0)[0] for index in (1, 2)]
    return {
        'first_ms': first_ms,
        'second_ms': second_ms,
        'twice': second_ms / first_ms - 1,
        **{name: ratio - 1 for name, ratio in zip(TIMERS, ratios, strict=True)},
        'rounds': pair.measurement.rounds,
        'load': os.getloadavg()[0],
    }


def summary(runs: list[dict]) -> dict:
    """Of the differences: the largest between the network and itself, the timers' medians."""
    twice = [abs(one['twice']) for one in runs]
    return {
        'twice_worst': max(twice),
        'twice_median': statistics.median(twice),
        'twice_within': sum(error <= BARS['twice'] for error in twice),
        **{name: statistics.median(one[name] for one in runs) for name in TIMERS},
    }


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('targets', nargs='*', default=TARGETS)
    parser.add_argument('--runs', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--max-seconds', type=float, default=20.0, help='of one run')
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    BACKENDS.update(TIMERS)
    result = dict(
        command=f'python benchmarks/repeatability.py --runs {args.runs} --threads {args.threads} '
        f'--max-seconds {args.max_seconds:g}',
        device=device_name('cpu'),
        software=software('cpu'),
        conditions=conditions('cpu'),
        bars=BARS,
        targets={},
    )
    for target in args.targets:
        subject = load_target(target)
        runs = []
        for _ in range(args.runs):
            runs.append(run(subject, args.threads, args.max_seconds))
            print(subject.name, {name: round(value, 4) for name, value in runs[-1].items()})
        result['targets'][subject.name] = dict(summary(runs), runs=runs)
        found = result['targets'][subject.name]
        timers = ', '.join(f'{name} {found[name]:+.1%}' for name in TIMERS)
        print(
            f'{subject.name}: two medians of a run differ by {found["twice_worst"]:.1%} at most '
            f'(within {BARS["twice"]:.0%} in {found["twice_within"]} of {args.runs} runs); '
            f"torch's against ours: {timers}",
            flush=True,
        )
    write_atomic(args.out, json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
