#!/usr/bin/env python
"""Measure networks on this device, against each other and against a latency table.

Without a target it times the two smallest networks of the zoo. Networks take turns, so that a
machine that slows down spoils no comparison; the figures are medians, with the distance between the
quartiles (IQR).

    python tools/benchmark_latency.py prunet_p0 work_dirs/prunet_digits/subnet.json --batch 8
"""

import argparse
import json
from pathlib import Path

from prunet_mm.engine.cli import run
from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import ConfigError
from prunet_mm.latency import LatencyTable, check_device
from prunet_mm.latency.cli import Settings, add_measuring_arguments, progress_bar, text_table
from prunet_mm.latency.device import device_name
from prunet_mm.spec import NetworkSpec, load_zoo

DEFAULT_TARGETS = ['prunet_p0', 'prunet_p1']
DEFAULTS = Settings(max_seconds=20.0)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'targets',
        nargs='*',
        metavar='TARGET',
        help='a name in the zoo, or a JSON file that a search wrote; '
        f'by default {" and ".join(DEFAULT_TARGETS)}',
    )
    parser.add_argument(
        '--table', metavar='PATH', help='also print what this latency table predicts'
    )
    parser.add_argument('--json', metavar='PATH', help='also write the results as JSON records')
    add_measuring_arguments(parser, DEFAULTS, "batch and threads of --table's file")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    specs = [load_target(target) for target in args.targets or DEFAULT_TARGETS]
    table = LatencyTable.load(args.table) if args.table else None
    settings = choose_settings(args, table)
    predicted_ms = [table.predict_ms(spec) if table else None for spec in specs]
    print(settings.header(), flush=True)

    # Only now, since they import torch.
    from prunet_mm.latency.benchmark import measure_networks
    from prunet_mm.latency.measure import Protocol

    with progress_bar('measuring') as progress:
        samples = measure_networks(
            specs,
            settings.device,
            settings.batch,
            settings.threads,
            Protocol(max_seconds=settings.max_seconds),
            progress,
        )
    print(
        f'protocol  norms folded, random images, networks take turns in {samples.rounds} shuffled '
        f'rounds; medians of {samples.clock}\n'
    )
    records = [
        dict(
            target=spec.name,
            kind='measured',
            device=device_name(settings.device),
            backend='eager',
            dtype='float32',
            batch=settings.batch,
            threads=settings.threads,
            **samples.timing(index)._asdict(),
            params=spec.params(),
            macs=spec.macs(),
            predicted_ms=predicted,
        )
        for index, (spec, predicted) in enumerate(zip(specs, predicted_ms, strict=True))
    ]
    if table:
        print(f'predicted by {args.table}, {table.describe()}\n')
    print(_text(records, table and table.kind))
    if args.json:
        write_atomic(args.json, json.dumps(records, indent=2) + '\n')


def choose_settings(args: argparse.Namespace, table: LatencyTable | None) -> Settings:
    """How to measure, so that it can be compared with the table if there is one."""
    if table is None:
        return DEFAULTS.updated(vars(args))
    known = dict(batch=table.batch, threads=table.threads)
    settings = DEFAULTS.updated(known, vars(args))
    if (settings.batch, settings.threads) != (table.batch, table.threads):
        raise ConfigError(
            f'{args.table} is for batch {table.batch} and {table.threads} CPU threads, so with '
            '--table no other --batch or --threads can be given'
        )
    check_device(table, settings.device)
    return settings


def load_target(target: str) -> NetworkSpec:
    """The network that a command line names: a path of a JSON file, or one of the zoo."""
    is_path = target.endswith('.json') or Path(target).exists()
    return NetworkSpec.load(target) if is_path else load_zoo(target)


def _text(records: list[dict], kind: str | None) -> str:
    """A row per target; ``kind`` is that of the table, if there is one."""
    titles = ['target', 'median [ms]', 'IQR [ms]', 'samples', 'params [M]', 'MACs [M]']
    rows = [titles + ([f'{kind} table [ms]', 'table : median'] if kind else [])]
    for record in records:
        row = [
            record['target'],
            f'{record["latency_ms"]:.3f}',
            f'{record["iqr_ms"]:.3f}',
            str(record['samples']),
            f'{record["params"] / 1e6:.3f}',
            f'{record["macs"] / 1e6:.1f}',
        ]
        if kind:
            predicted_ms = record['predicted_ms']
            row += [f'{predicted_ms:.3f}', f'{predicted_ms / record["latency_ms"]:.3f}']
        rows.append(row)
    return text_table(rows)


if __name__ == '__main__':
    run(main)
