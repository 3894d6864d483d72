"""How well latency tables predict whole networks, on this machine's CPU with one thread.

    python benchmarks/table_validation.py [NAME ...] [--max-seconds 240]
    python benchmarks/table_validation.py digits cifar10 v100_64px --defaults 3

Builds a table per row with tools/build_latency_table.py: 60 random networks, of which half have no
part in the fit and are predicted. With --defaults tables are as the tool makes them unless told
otherwise, each so many times. Tables and scatter plots go to work_dirs/table_validation, results to
benchmarks/results/table_validation.json or table_defaults.json. Needs an idle machine. Whatever is
interrupted goes on with the same command; tables that are there are not built again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from prunet_mm.engine.files import write_atomic
from prunet_mm.latency import LatencyTable

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks/results'
FOLDER = Path('work_dirs/table_validation')
DIGITS, SLICE = 'configs/search/prunet_digits.py', 'benchmarks/configs/v100_64px.py'
ROWS = {
    'digits': [DIGITS],
    'digits_channels-last': [DIGITS, '--backend', 'channels-last'],
    'digits_torchscript': [DIGITS, '--backend', 'torchscript'],
    # Exporting a block takes a second, which counts.
    'digits_onnxruntime': [DIGITS, '--backend', 'onnxruntime', '--max-seconds', '600'],
    'v100_64px': [SLICE],
    'cifar10': ['configs/search/prunet_cifar10.py'],
}


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each row that is asked for, as one would type it."""
    options = ['--validate', '60', '--max-seconds', f'{args.max_seconds:g}']
    names = {name: ROWS[name] for name in args.names or ROWS}
    if args.defaults:
        options = []
        names = {
            f'{name}_default_{number}': own
            for name, own in names.items()
            for number in range(args.defaults)
        }
    return {
        name: ['python', 'tools/build_latency_table.py', config, *options, *own,
               '--out', f'{FOLDER}/{name}.json']
        for name, (config, *own) in names.items()
    }  # fmt: skip


def record(name: str, command: list[str], load: list[float]) -> dict:
    """What is kept of a table: all but its entries, and its errors in short."""
    table = LatencyTable.load(ROOT / FOLDER / f'{name}.json')
    head = table.to_dict()
    errors = table.validation.errors
    del head['validation']['networks']
    return dict(
        name=name,
        command=' '.join(command),
        load=load,
        blocks=len(head.pop('entries')),
        mape=round(float(np.abs(errors).mean()), 4),
        bias=round(float(errors.mean()), 4),
        worst=round(float(errors[np.abs(errors).argmax()]), 4),
        kendall_tau=round(table.validation.tau, 4),
        **head,
    )


def markdown(rows: list[dict]) -> str:
    """The rows as the table in docs/latency.md."""
    lines = ['| table | blocks | rounds, s | MAPE | bias | worst | tau |', f'|{"---|" * 7}']
    for row in rows:
        rounds, seconds = row['protocol']['rounds'], row['protocol']['seconds']
        lines.append(
            f'| {row["name"]} | {row["blocks"]} | {rounds}, {seconds:.0f} | {row["mape"]:.1%} | '
            f'{row["bias"]:+.1%} | {row["worst"]:+.1%} | {row["kendall_tau"]:.3f} |'
        )
    return '\n'.join(lines)


def main() -> None:
    """Build the tables, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(ROWS)}; all')
    parser.add_argument('--max-seconds', type=float, default=240.0, help='per table')
    parser.add_argument('--defaults', type=int, metavar='TIMES', help='without any options')
    args = parser.parse_args()
    if unknown := set(args.names) - set(ROWS):
        parser.error(f'no row {", ".join(sorted(unknown))}, known are {", ".join(ROWS)}')
    out = RESULTS / ('table_defaults.json' if args.defaults else 'table_validation.json')
    done = {row['name']: row for row in json.loads(out.read_text())} if out.exists() else {}
    wanted = commands(args)
    for name, command in wanted.items():
        if not (ROOT / FOLDER / f'{name}.json').exists():
            before = os.getloadavg()[0]
            subprocess.run([sys.executable, *command[1:]], cwd=ROOT, check=True)
            load = [round(before, 1), round(os.getloadavg()[0], 1)]
            done[name] = record(name, command, load)
            write_atomic(out, json.dumps(list(done.values()), indent=1) + '\n')
    print(markdown([done[name] for name in wanted if name in done]))


if __name__ == '__main__':
    main()
