#!/usr/bin/env python
"""Measure models on this device, against each other and against a latency table.

A target is the path of a config of a classifier or detector (.py), or of a network that a search
wrote (.json); a network of the zoo; or a model of timm or mmpretrain, by its name or as timm:NAME
and mmpretrain:NAME. Without one, the two smallest networks of the zoo are
timed. Weights are random: nothing is downloaded. Of a detector the backbone is timed, at the size
of the detector's images, or with --whole all of it, without and with post-processing.

Targets, with each backend and batch, take turns in shuffled rounds, so that a machine that slows
down spoils no comparison. Ratios are to the first row of the same batch, round by round.

    python tools/benchmark_latency.py prunet_p0 timm:resnet50 --batch 1,8 --backend eager,compile
"""

import argparse
import json
import re
from dataclasses import replace
from importlib.util import find_spec
from itertools import product

from prunet_mm.engine.cli import require_output, run
from prunet_mm.engine.files import write_atomic
from prunet_mm.engine.progress import progress_bar
from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.latency import LatencyTable
from prunet_mm.timing import Settings
from prunet_mm.timing.arguments import add_measuring_arguments, chosen, header
from prunet_mm.timing.conditions import conditions, drift_sentence
from prunet_mm.timing.device import device_name, software

DEFAULT_TARGETS = ['prunet_p0', 'prunet_p1']
DEFAULTS = dict(backend=('eager',), batch=(1,), max_seconds=20.0)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'targets',
        nargs='*',
        metavar='TARGET',
        default=DEFAULT_TARGETS,
        help=f'what to measure; by default {" and ".join(DEFAULT_TARGETS)}',
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        '--part',
        choices=['model', 'backbone'],
        help='the whole model, or its backbone alone; by default the model, but of a detector its '
        'backbone',
    )
    part.add_argument(
        '--whole',
        action='store_const',
        const='model',
        dest='part',
        help='the same as --part model: detectors as a whole, without and with post-processing',
    )
    parser.add_argument(
        '--input-size',
        type=size,
        metavar='SIZE',
        help='rows and columns of the images, as 224 or 800x1344; by default those of the model',
    )
    parser.add_argument(
        '--table', metavar='PATH', help='also print what this latency table predicts'
    )
    parser.add_argument('--json', metavar='PATH', help='also write the results as JSON records')
    parser.add_argument('--plot', metavar='PATH', help='also draw them as PNG')
    source = "those of --table's file"
    add_measuring_arguments(parser, source, compare=True, max_seconds=DEFAULTS['max_seconds'])
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    """An argparse type: rows and columns."""
    found = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
    if not found:
        raise argparse.ArgumentTypeError(f'expected a size such as 224 or 800x1344, not {text!r}')
    return int(found[1]), int(found[2] or found[1])


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    for option, suffix in dict(json='.json', plot='.png').items():
        if path := getattr(args, option):
            require_output(path, f'--{option}', suffix)
    if args.plot and find_spec('matplotlib') is None:
        raise ConfigError('--plot needs matplotlib, which is not installed: pip install matplotlib')
    table = LatencyTable.load(args.table) if args.table else None
    found = choose(args, table)
    pairs = product(found['backend'], found['batch'])
    common = {name: found[name] for name in ('device', 'dtype', 'threads')}
    settings = [Settings(**common, backend=backend, batch=batch) for backend, batch in pairs]
    for one in settings:
        one.require()

    # Only now, since they import torch.
    from prunet_mm.comparing.benchmark import PROTOCOL, Benchmark
    from prunet_mm.comparing.results import FAILED, as_text, records
    from prunet_mm.comparing.targets import load_targets
    from prunet_mm.detection.post_processing import versions

    interrupted = False
    with progress_bar('loading') as progress:
        subjects = []
        for target in args.targets:
            progress(0.0, f'loading {target}')
            subjects += load_targets(target, args.part, args.input_size)
    bench = Benchmark(subjects, settings)
    specs = [job.subject.spec for job in bench.jobs]
    predicted_ms = [table.predict_ms(spec) if table and spec else None for spec in specs]
    print(header(settings), flush=True)
    how = {name: found[name] for name in ('precision', 'max_seconds')}
    with progress_bar('measuring') as progress:
        try:
            bench.run(replace(PROTOCOL, **how), progress)
        except KeyboardInterrupt:
            interrupted = True
    state, measurement = conditions(found['device']), bench.measurement
    clocks = [*bench.clocks, *(f'{name} {value}' for name, value in state.items())]
    print(
        f'clocks    {", ".join(clocks) or "unknown"}\n'
        f'drift     rounds took {drift_sentence(measurement.speeds())}\n'
        'protocol  norms folded, random weights and images, outputs checked, targets take turns '
        f'in {measurement.rounds} shuffled rounds; medians of {bench.stopwatch.name}'
    )
    installed = software(found['device'], found['backend'])
    if any(subject.after for subject in subjects):
        installed |= (post := versions())
        print(
            f'boxes     post-processing of mmdet {post["mmdet"]} and mmcv {post["mmcv"]}, eager, '
            'float32, of made-up scores: at each level as many pass the threshold as nms_pre lets '
            'through, the most that NMS can get'
        )
    print()
    about = dict(
        device=device_name(found['device']),
        software=installed,
        conditions=state,
        clocks=bench.clocks,
        clock=bench.stopwatch.name,
    )
    rows = records(bench, found['precision'], about)
    if table:
        print(f'predicted by {args.table}, {table.describe()}\n')
        for row, value_ms in zip(rows, predicted_ms, strict=True):
            row |= dict(predicted_ms=value_ms, predicted_kind=table.kind)
    print(as_text(rows, found['precision'], table and table.kind))
    if args.json:
        write_atomic(args.json, json.dumps(rows, indent=2, allow_nan=False) + '\n')
    if args.plot:
        from prunet_mm.comparing.plot import plot

        plot(bench, rows, about['device'], args.plot)
    if interrupted:
        raise KeyboardInterrupt('interrupted: the table holds what was measured until then')
    if failed := sum(row['kind'] == FAILED for row in rows):
        raise PrunetError(f'{failed} of {len(rows)} rows failed; the table says why')


def choose(args: argparse.Namespace, table: LatencyTable | None) -> dict:
    """How to measure, so that it can be compared with the table if there is one."""
    if table is None:
        return chosen(DEFAULTS, vars(args))
    if table.kind == 'estimated':
        raise ConfigError(
            f'{args.table} is estimated, by a protocol that nothing is measured by here: '
            'tools/predict_latency.py prints what it says'
        )
    known = dict(
        backend=(table.backend,), dtype=table.dtype, batch=(table.batch,), threads=table.threads
    )
    found = chosen(DEFAULTS, known, vars(args))
    if any(found[name] != value for name, value in known.items()):
        raise ConfigError(
            f'{args.table} is of {table.settings().words}: with --table no other ones can be given'
        )
    if table.device != (here := device_name(found['device'])):
        print(
            f'warning   {args.table} is of {table.device}, but this is {here}: what it predicts '
            'does not hold here',
            flush=True,
        )
    return found


if __name__ == '__main__':
    run(main)
