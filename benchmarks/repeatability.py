"""How far a latency can be trusted: the same network twice in one run, and torch's own timer.

    python benchmarks/repeatability.py [TARGET ...] [--runs 20] [--threads 1]

In each run the network is in a comparison twice, and how far the two medians are apart is the error
of a comparison of two networks that are equally fast. After that it takes turns with
`torch.utils.benchmark.Timer`, by the clock that ours are timed by and by its own, which goes on
while a busy machine computes something else. For an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from prunet_mm.comparing.benchmark import PROTOCOL, Benchmark
from prunet_mm.comparing.targets import Subject, load_targets
from prunet_mm.engine.files import write_atomic
from prunet_mm.timing import Settings
from prunet_mm.timing.conditions import conditions
from prunet_mm.timing.device import device_name, software
from prunet_mm.timing.engine import CpuStopwatch, Target, deployed

TARGETS = ['configs/cls/prunet_digits.json', 'timm:mobilenetv3_small_100', 'prunet_p0']
RESULT = Path(__file__).parent / 'results/repeatability.json'
BARS = dict(twice=0.02, timer=0.03)
SECONDS = 0.05  # of one visit of torch's timer


TIMERS = {'timer, same clock': True, 'timer, own clock': False}


def timers(target: Target, threads: int, rounds: int = 20) -> dict[str, float]:
    """What torch's timer takes for a target, relative to ours: medians over rounds."""
    watch, ratios = CpuStopwatch(threads), {name: [] for name in TIMERS}
    names = dict(call=target.steps[0], x=target.inputs[0])

    def ours() -> float:
        until, laps_ms = time.perf_counter() + SECONDS, []
        while time.perf_counter() < until:
            laps_ms += watch.laps_ms(target.steps, target.inputs[0])
        return statistics.median(laps_ms)

    def theirs(same: bool) -> float:
        clock = dict(timer=watch.clock) if same else {}
        timer = Timer('call(x)', globals=names, num_threads=threads, **clock)
        return 1e3 * timer.blocked_autorange(min_run_time=SECONDS).median

    for _ in range(rounds):
        calls = {'ours': ours, **{name: partial(theirs, same) for name, same in TIMERS.items()}}
        found = {name: calls[name]() for name in random.sample([*calls], len(calls))}
        for name in TIMERS:
            ratios[name].append(found[name] / found['ours'])
    return {name: statistics.median(values) for name, values in ratios.items()}


def run(subject: Subject, threads: int, max_seconds: float) -> dict:
    """One run on the CPU: how far the network is from itself, and torch's timer from ours."""
    settings = Settings(threads=threads)
    pair = Benchmark([subject, subject], [settings])
    pair.run(replace(PROTOCOL, max_seconds=max_seconds))
    if errors := [job.error for job in pair.jobs if job.error]:
        raise SystemExit(errors[0])
    first_ms, second_ms = (pair.measurement.timing(index).latency_ms for index in (0, 1))
    with deployed(settings):
        target = Target([subject.model], [torch.randn(1, *subject.shape)])
        ratios = timers(target, threads)
    return {
        'first_ms': first_ms,
        'second_ms': second_ms,
        'twice': second_ms / first_ms - 1,
        **{name: ratio - 1 for name, ratio in ratios.items()},
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
        (subject,) = load_targets(target)
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
