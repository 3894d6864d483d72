#!/usr/bin/env python
"""Make the report of a search again, also in the middle of it, or compare several searches.

python tools/report.py work_dirs/prunet_digits
python tools/report.py work_dirs/seed_0 work_dirs/seed_1 --out seeds.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    from prunet_mm.engine import cli
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

COMPARISON = 'comparison.html'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='work dir of a search, ended or going on'
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help=f'the HTML file; by default report.html in the work dir, and {COMPARISON} here where '
        'several are compared',
    )
    return parser.parse_args()


def main() -> None:
    """Write the page and say where it is."""
    args = parse_args()
    if args.out:
        cli.require_output(args.out, '--out', '.html')

    from prunet_mm.report import PAGE, write_page

    several = len(args.work_dirs) > 1
    path = Path(args.out or (COMPARISON if several else Path(args.work_dirs[0], PAGE)))
    write_page(args.work_dirs, path)
    print(f'{path} ({path.stat().st_size / 1e6:.2f} MB)')


if __name__ == '__main__':
    cli.run(main)
