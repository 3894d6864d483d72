#!/usr/bin/env python
"""Measure models on this device, against each other and against a latency table.

A target is the path of a config of a classifier or detector (.py), of a network that a search wrote
(.json) or of an ONNX model (.onnx); a network of the zoo; or a model of timm or mmpretrain, by its
name or as timm:NAME and mmpretrain:NAME. Without one, the two smallest networks of the zoo are
timed. Weights are random: nothing is downloaded. Of a detector the backbone is timed, at the size
of the detector's images, or with --whole all of it, without and with post-processing.

Targets, with each backend and batch, take turns in shuffled rounds, so that a machine that slows
down spoils no comparison. Ratios are to the first row of the same batch, round by round.

    python tools/benchmark_latency.py prunet_p0 timm:resnet50 --batch 1,8 --backend eager,compile
"""

import argparse
import re
from dataclasses import replace
from importlib.util import find_spec

from prunet_mm.engine.cli import require_output, run
from prunet_mm.engine.files import write_atomic
from prunet_mm.engine.progress import progress_bar
from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.latency import LatencyTable, check_device
from prunet_mm.latency.backends import require
from prunet_mm.latency.cli import Settings, add_measuring_arguments
from prunet_mm.latency.conditions import conditions
from prunet_mm.latency.device import device_name, require_device, software

DEFAULT_TARGETS = ['prunet_p0', 'prunet_p1']
DEFAULTS = Settings(backend=(), batch=(1,), max_seconds=20.0)


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
    parser.add_argument('--csv', metavar='PATH', help='also write them as CSV')
    parser.add_argument('--plot', metavar='PATH', help='also draw them as PNG')
    add_measuring_arguments(parser, DEFAULTS, "those of --table's file", compare=True)
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
    for option, suffix in dict(json='.json', csv='.csv', plot='.png').items():
        if path := getattr(args, option):
            require_output(path, f'--{option}', suffix)
    if args.plot and find_spec('matplotlib') is None:
        raise ConfigError('--plot needs matplotlib, which is not installed: pip install matplotlib')
    table = LatencyTable.load(args.table) if args.table else None
    settings = choose_settings(args, table)
    require_device(settings.device)
    require(settings.backend, settings.device, settings.dtype)

    # Only now, since they import torch.
    from prunet_mm.latency.benchmark import PROTOCOL, Benchmark
    from prunet_mm.latency.detector import versions
    from prunet_mm.latency.results import FAILED, as_csv, as_json, as_text, records
    from prunet_mm.latency.targets import load_targets

    interrupted = False
    with progress_bar('loading') as progress:
        subjects = []
        for target in args.targets:
            progress(0.0, f'loading {target}')
            subjects += load_targets(target, args.part, args.input_size)
        bench = Benchmark(
            subjects,
            settings.device,
            settings.backend or None,
            settings.dtype,
            settings.batch,
            settings.threads,
        )
    specs = [job.subject.spec for job in bench.jobs]
    predicted_ms = [table.predict_ms(spec) if table and spec else None for spec in specs]
    settings = replace(settings, backend=tuple(dict.fromkeys(job.backend for job in bench.jobs)))
    print(settings.header(), flush=True)
    with progress_bar('measuring') as progress:
        try:
            protocol = replace(
                PROTOCOL, precision=settings.precision, max_seconds=settings.max_seconds
            )
            bench.run(protocol, progress)
        except KeyboardInterrupt:
            interrupted = True
    state = conditions(settings.device)
    print(
        f'clocks    {", ".join(f"{name} {value}" for name, value in state.items()) or "unknown"}\n'
        'protocol  norms folded, random weights and images, outputs checked, targets take turns '
        f'in {bench.measurement.rounds} shuffled rounds; medians of {bench.measurement.clock}'
    )
    installed = software(settings.device, settings.backend)
    if any(subject.after for subject in subjects):
        installed |= (post := versions())
        print(
            f'boxes     post-processing of mmdet {post["mmdet"]} and mmcv {post["mmcv"]}, eager, '
            'float32, of made-up scores: at each level as many pass the threshold as nms_pre lets '
            'through, the most that NMS can get'
        )
    print()
    about = dict(
        device=device_name(settings.device),
        software=installed,
        conditions=state,
        clock=bench.measurement.clock,
    )
    rows = records(bench, settings.precision, about)
    if table:
        print(f'predicted by {args.table}, {table.describe()}\n')
        for row, value_ms in zip(rows, predicted_ms, strict=True):
            row |= dict(predicted_ms=value_ms, predicted_kind=table.kind)
    print(as_text(rows, settings.precision, table and table.kind))
    if args.json:
        write_atomic(args.json, as_json(rows))
    if args.csv:
        write_atomic(args.csv, as_csv(rows))
    if args.plot:
        from prunet_mm.latency.plot import plot

        plot(bench, rows, about['device'], args.plot)
    if interrupted:
        raise KeyboardInterrupt('interrupted: the table holds what was measured until then')
    if failed := sum(row['kind'] == FAILED for row in rows):
        raise PrunetError(f'{failed} of {len(rows)} rows failed; the table says why')


def choose_settings(args: argparse.Namespace, table: LatencyTable | None) -> Settings:
    """How to measure, so that it can be compared with the table if there is one."""
    if table is None:
        return DEFAULTS.updated(vars(args))
    if table.kind == 'estimated':
        raise ConfigError(
            f'{args.table} is estimated, by a protocol that nothing is measured by here: '
            'tools/predict_latency.py prints what it says'
        )
    known = dict(
        backend=(table.backend,), dtype=table.dtype, batch=(table.batch,), threads=table.threads
    )
    settings = DEFAULTS.updated(known, vars(args))
    if any(getattr(settings, name) != value for name, value in known.items()):
        raise ConfigError(
            f'{args.table} is of {table.backend}, {table.dtype}, batch {table.batch} and '
            f'{table.threads} CPU threads: with --table no other ones can be given'
        )
    check_device(table, settings.device)
    return settings


if __name__ == '__main__':
    run(main)
