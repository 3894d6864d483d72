"""What stands between the latency that a table predicts and the one that a clock shows, in parts.

    OMP_NUM_THREADS=1 python benchmarks/latency_parts.py digits cifar10

Random networks around a config's budget, none of which the table was made with, are timed several
times, some minutes apart: alone, pass after pass, as one does by hand, and in turns with networks
that the table knows, as a search does at its end. For a network at a time,

    alone / predicted = table * clock * lone * noise,

    table   at the table's state / predicted, the geometric mean over the times
    clock   the machine's state: what the references take, over what they took on the table's day
    lone    alone / in turns with others, in the same minute
    noise   at the table's state, over its mean over the times

Tables are those of benchmarks/latency_promise.py, built where they are not there. Needs an idle
machine. Rows go to benchmarks/results/latency_parts.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import time
from collections.abc import Sequence

from latency_promise import CONFIGS, ROOT, table
from mmengine.config import Config

from prunet_mm.engine.files import write_atomic
from prunet_mm.engine.process import in_a_process
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.promise import keep
from prunet_mm.spec import NetworkSpec, SearchSpace

RESULT = ROOT / 'benchmarks/results/latency_parts.json'
PARTS = ('table', 'clock', 'lone', 'noise', 'alone')
NEAR = 0.1  # of the budget
KEEP_S, ALONE_S = 30.0, 3.0


def alone_ms(latencies: LatencyTable, specs: Sequence[NetworkSpec]) -> list[float]:
    """The median of each network, timed with nothing else in between."""
    from prunet_mm.latency.pool import Pool
    from prunet_mm.timing.engine import Protocol, deployed, measure, stopwatch_for
    from prunet_mm.timing.samples import Measurement

    settings, medians_ms = latencies.settings('cpu'), []
    with deployed(settings):
        for spec in specs:
            stop = Pool(settings).network('it', spec)
            protocol = Protocol(passes=20, min_rounds=6, precision=0.002, max_seconds=ALONE_S)
            visits = measure(lambda number, only=stop: [only], protocol, stopwatch_for(settings))
            medians_ms.append(Measurement(visits).timing('it').latency_ms)
    return medians_ms


def networks(config: str, latencies: LatencyTable, count: int) -> tuple[SearchSpace, list]:
    """The config's space, and random networks near its budget that the table does not know."""
    cfg = Config.fromfile(ROOT / CONFIGS[config]).model
    space = SearchSpace.from_dict(cfg.architecture.backbone.space.to_dict())
    largest_ms = latencies.predict_ms(space.largest(latencies.block_ms))
    budget_ms = cfg.latency.get('budget_ms') or cfg.latency.budget_ratio * largest_ms
    rng, found = random.Random('parts'), []
    while len(found) < count:
        spec = space.random(rng)
        if abs(latencies.predict_ms(spec) / budget_ms - 1) <= NEAR:
            found.append(spec)
    return space, found


def rows(config: str, args: argparse.Namespace) -> list[dict]:
    """A row per network and time, with its parts as factors."""
    latencies = LatencyTable.load(ROOT / table(config, None))
    space, specs = networks(config, latencies, args.networks)
    predicted_ms = [latencies.predict_ms(spec) for spec in specs]
    found = []
    for number in range(args.times):
        if number:
            time.sleep(args.pause)
        lone_ms = in_a_process(alone_ms, latencies, specs)
        among = in_a_process(keep, latencies, space, specs, 'cpu', predicted_ms, KEEP_S)
        found += [
            dict(config=config, latency=latencies.describe(), network=index, time=number,
                 predicted_ms=expected_ms, alone_ms=lone, among_ms=one.measured_ms, clock=one.state,
                 at_table_state_ms=one.at_table_state_ms)
            for index, (expected_ms, lone, one)
            in enumerate(zip(predicted_ms, lone_ms, among, strict=True))
        ]  # fmt: skip
    for row in found:
        own = [one['at_table_state_ms'] for one in found if one['network'] == row['network']]
        mean_ms = math.exp(statistics.fmean(map(math.log, own)))
        row.update(
            table=mean_ms / row['predicted_ms'],
            lone=row['alone_ms'] / row['among_ms'],
            noise=row['at_table_state_ms'] / mean_ms,
            alone=row['alone_ms'] / row['predicted_ms'],
        )
    return found


def show(found: Sequence[dict]) -> None:
    """Print each part: smallest, median and largest, in percent."""
    for config in dict.fromkeys(row['config'] for row in found):
        print(config)
        for part in PARTS:
            off = sorted(100 * row[part] - 100 for row in found if row['config'] == config)
            low, median, high = off[0], statistics.median(off), off[-1]
            print(f'  {part:6} {low:+6.1f} {median:+6.1f} {high:+6.1f} %')


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help=', '.join(CONFIGS))
    parser.add_argument('--networks', type=int, default=8)
    parser.add_argument('--times', type=int, default=4)
    parser.add_argument('--pause', type=float, default=45.0, help='seconds between the times')
    args = parser.parse_args()
    if unknown := set(args.configs) - set(CONFIGS):
        parser.error(f'no config {", ".join(sorted(unknown))}, known are {", ".join(CONFIGS)}')
    os.chdir(ROOT)
    before = json.loads(RESULT.read_text()) if RESULT.exists() else []
    for config in args.configs or CONFIGS:
        fresh = rows(config, args)
        before = [row for row in before if row['config'] != config] + fresh
        write_atomic(RESULT, json.dumps(before, indent=1) + '\n')
    show(before)


if __name__ == '__main__':
    main()
