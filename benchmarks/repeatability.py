"""How far a latency can be trusted: the same network twice in one run, and torch's own timer.

    python benchmarks/repeatability.py [TARGET ...] [--runs 20] [--threads 1]

In each run the network is in the comparison twice, and how far the two medians are apart is the
error of a comparison of two networks that are equally fast. Right after it
`torch.utils.benchmark.Timer` times the same callable: by the clock that ours are timed by, and by
its own, which on a busy machine runs while others compute. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from prunet_mm.engine.files import write_atomic
from prunet_mm.latency.backends import BACKENDS
from prunet_mm.latency.benchmark import PROTOCOL, Benchmark
from prunet_mm.latency.conditions import conditions
from prunet_mm.latency.device import device_name, software
from prunet_mm.latency.measure import CpuStopwatch, deployed
from prunet_mm.latency.network import random_inputs
from prunet_mm.latency.targets import Subject, load_target

TARGETS = ['configs/cls/prunet_digits.json', 'timm:mobilenetv3_small_100', 'prunet_p0']
RESULT = Path(__file__).parent / 'results/repeatability.json'
BARS = dict(twice=0.02, timer=0.03)


def run(subject: Subject, threads: int, max_seconds: float) -> dict:
    """One run on the CPU: the medians of the network against itself, and those of torch's timer."""
    bench = Benchmark([subject, subject], threads=threads)
    bench.run(replace(PROTOCOL, max_seconds=max_seconds))
    first, second = (bench.measurement.timing(index) for index in (0, 1))
    return dict(
        first_ms=first.latency_ms,
        second_ms=second.latency_ms,
        rounds=bench.measurement.rounds,
        uncertainty=bench.measurement.uncertainty,
        timer_same_clock_ms=timer_ms(subject, threads, CpuStopwatch(threads).clock),
        timer_own_clock_ms=timer_ms(subject, threads),
        load=os.getloadavg()[0],
    )


def timer_ms(subject: Subject, threads: int, clock: Callable[[], float] | None = None) -> float:
    """The median that `torch.utils.benchmark.Timer` finds in a second, in ms."""
    with deployed('cpu', threads):
        (x,) = random_inputs((1, *subject.shape), 1)
        call = BACKENDS['eager']().prepare(subject.model, [x], torch.float32)
        clock = dict(timer=clock) if clock else {}
        timer = Timer('call(x)', globals=dict(call=call, x=x), num_threads=threads, **clock)
        return 1e3 * timer.blocked_autorange(min_run_time=1.0).median


def summary(runs: list[dict]) -> dict:
    """How far apart the medians are, relative: in each run, and torch's against ours over all."""
    twice = [abs(one['second_ms'] / one['first_ms'] - 1) for one in runs]
    ours_ms = statistics.median(one[key] for one in runs for key in ('first_ms', 'second_ms'))

    def timer(clock: str) -> float:
        return statistics.median(one[f'timer_{clock}_clock_ms'] for one in runs) / ours_ms - 1

    return dict(
        twice_worst=max(twice),
        twice_median=statistics.median(twice),
        twice_within=sum(error <= BARS['twice'] for error in twice),
        timer_same_clock=timer('same'),
        timer_own_clock=timer('own'),
    )


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('targets', nargs='*', default=TARGETS)
    parser.add_argument('--runs', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--max-seconds', type=float, default=20.0, help='of one run')
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
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
        print(
            f'{subject.name}: two medians of a run differ by {found["twice_worst"]:.1%} at most '
            f'(within {BARS["twice"]:.0%} in {found["twice_within"]} of {args.runs} runs); '
            f"torch's Timer is {found['timer_same_clock']:+.1%} away by the same clock, "
            f'{found["timer_own_clock"]:+.1%} by its own',
            flush=True,
        )
    write_atomic(args.out, json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
