#!/usr/bin/env python
"""Look into latency tables, merge them, or compare two.

python tools/latency_table.py show work_dirs/tables/digits_cpu.json
python tools/latency_table.py merge one.json two.json --out both.json
python tools/latency_table.py diff old.json new.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from typing import TYPE_CHECKING

from prunet_mm.engine.cli import require_output, run

if TYPE_CHECKING:
    from prunet_mm.latency import LatencyTable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='show | merge | diff')
    show = commands.add_parser('show', help='provenance, validation, and what blocks cost')
    show.add_argument('table')
    show.set_defaults(command=print_table)
    merge = commands.add_parser('merge', help='the blocks of several tables in one')
    merge.add_argument('tables', nargs='+', metavar='table')
    merge.add_argument('--out', required=True, help='the file to write')
    merge.set_defaults(command=print_merged)
    diff = commands.add_parser('diff', help='ratios of the latencies that two tables share')
    diff.add_argument('old')
    diff.add_argument('new')
    diff.set_defaults(command=print_difference)
    return parser.parse_args()


def print_table(args: argparse.Namespace) -> None:
    """Header, a row per kind of block, and which hidden widths were measured."""
    from prunet_mm.engine.text import text_table
    from prunet_mm.latency import LatencyTable

    table = LatencyTable.load(args.table)
    print(f'table       {table.source}, {len(table.entries)} blocks')
    print(f'latency     {table.describe()}')
    print(f'software    {plain(table.software) or "-"}')
    print(f'protocol    {plain(table.protocol)}')
    print(
        f'network     {table.network_overhead_ms:+.4g} ms and {table.network_scale:.4g} times the '
        'sum of its blocks'
    )
    if table.validation:
        fit = f'fitted on {table.validation.fitted_on} other networks'
        print(f'validation  {table.validation.describe()}; {fit}')
    print('\n' + text_table(kind_rows(table)))
    if rows := width_rows(table):
        titles = ('block', 'hidden widths', table.kind, 'interpolated')
        print('\n' + text_table([titles, *rows]))


def kind_rows(table: LatencyTable) -> list[tuple[str, ...]]:
    """A row per op: how many entries, what they cost, and how well that is known."""
    import numpy as np

    kinds = defaultdict(list)
    for entry in table.entries:
        kinds[entry.op].append(entry)
    rows = [('op', 'blocks', f'{table.kind} [ms]', 'IQR : median', 'samples')]
    for op, entries in sorted(kinds.items()):
        latency_ms = [entry.latency_ms for entry in entries]
        spread = np.median([entry.iqr_ms / entry.latency_ms for entry in entries])
        samples = [entry.samples for entry in entries]
        rows.append(
            (
                op,
                str(len(entries)),
                f'{min(latency_ms):.4g} - {max(latency_ms):.4g}',
                f'{spread:.1%}' if max(samples) else '-',
                f'{min(samples)} - {max(samples)}' if max(samples) else '-',
            )
        )
    return rows


def width_rows(table: LatencyTable) -> list[tuple[str, ...]]:
    """A row per block with several hidden widths: how many are entries, and which are not."""
    import numpy as np

    from prunet_mm.latency.table import readable

    rows = []
    for key, (widths, _) in table.curves.items():
        if len(widths) > 1:
            step = int(np.gcd.reduce(widths))  # a space's grid starts with its step
            grid = range(int(widths[0]), int(widths[-1]) + 1, step)
            between = [w for w in grid if table.is_interpolated(key._replace(hidden=w))]
            ends, part = f'{widths[0]} - {widths[-1]}', f'{len(widths)} of {len(grid)}'
            rows.append((readable(key), ends, part, ranges(between) or 'none'))
    return rows


def ranges(widths: list[int]) -> str:
    """Ascending numbers, each run of three or more with equal steps as one: '8-24 step 8, 40'."""
    parts, start = [], 0
    while start < len(widths):
        step = widths[start + 1] - widths[start] if start + 1 < len(widths) else 0
        stop = start + 1
        while stop < len(widths) and widths[stop] - widths[stop - 1] == step:
            stop += 1
        if stop - start < 3:
            stop = start + 1
            parts.append(str(widths[start]))
        else:
            parts.append(f'{widths[start]}-{widths[stop - 1]} step {step}')
        start = stop
    return ', '.join(parts)


def plain(value: object) -> str:
    """Nested provenance in one line, without the quotes and braces of JSON."""
    if isinstance(value, dict):
        return ', '.join(f'{name.replace("_", " ")} {plain(part)}' for name, part in value.items())
    if isinstance(value, list):
        return ' | '.join(map(plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def print_merged(args: argparse.Namespace) -> None:
    """Write the merged table; say what of its parts it does not have."""
    require_output(args.out, '--out')
    from prunet_mm.latency import LatencyTable
    from prunet_mm.latency.merge import merge

    tables = [LatencyTable.load(path) for path in args.tables]
    merged = merge(tables)
    merged.save(args.out)
    total = sum(len(table.entries) for table in tables)
    print(f'wrote {args.out}: {len(merged.entries)} blocks of {total}; {merged.describe()}')
    if any(table.validation != merged.validation for table in tables):
        print(
            'the tables were fitted to different networks: overhead, scale and validation are left '
            'out'
        )


def print_difference(args: argparse.Namespace) -> None:
    """New over old: per op and over all, and the blocks that differ most."""
    import numpy as np

    from prunet_mm.engine.text import text_table
    from prunet_mm.errors import LatencyTableError
    from prunet_mm.latency import LatencyTable
    from prunet_mm.latency.table import readable

    tables = [LatencyTable.load(path) for path in (args.old, args.new)]
    old, new = ({entry.key: entry.latency_ms for entry in table.entries} for table in tables)
    ratios = {key: new[key] / old[key] for key in old if key in new}
    for name, table, count in zip(('old', 'new'), tables, (len(old), len(new)), strict=True):
        print(f'{name}  {table.source}, {table.describe()}; {count - len(ratios)} blocks only here')
    if not ratios:
        raise LatencyTableError(f'{args.old} and {args.new} have no block in common')
    kinds = defaultdict(list)
    for key, ratio in ratios.items():
        kinds[key.op].append(ratio)
    rows = [('new : old', 'blocks', 'median', 'quartiles', 'least', 'most')]
    for op, values in (*sorted(kinds.items()), ('all', list(ratios.values()))):
        least, low, median, high, most = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        figures = f'{median:.3f}', f'{low:.3f} - {high:.3f}', f'{least:.3f}', f'{most:.3f}'
        rows.append((op, str(len(values)), *figures))
    print('\n' + text_table(rows))
    for title, choose in (('least', min), ('most', max)):
        key = choose(ratios, key=ratios.get)
        print(f'{title}: {readable(key)}, {old[key]:.4g} -> {new[key]:.4g} ms')


if __name__ == '__main__':
    args = parse_args()
    run(lambda: args.command(args))
