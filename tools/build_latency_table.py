#!/usr/bin/env python
"""Measure what every block of a config's search space costs on this device.

Blocks are timed inside of random networks of the space, in shuffled rounds, and at the end the
table's prediction is tested on random networks that were measured as a whole.

    python tools/build_latency_table.py configs/search/prunet_digits.py
"""

import argparse
from pathlib import Path

from prunet_mm.engine.cli import load_config, run
from prunet_mm.errors import ConfigError
from prunet_mm.latency.cli import (
    Settings,
    add_measuring_arguments,
    at_least,
    progress_bar,
    space_summary,
)
from prunet_mm.spec import SearchSpace

DEFAULTS = Settings(batch=64)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a search config: a file that sets `space`')
    parser.add_argument('--out', help='the file to write; by default `latency.table` of the config')
    parser.add_argument(
        '--full',
        action='store_true',
        help='measure every hidden width; by default ten of each candidate are measured, from '
        'the smallest to the largest, and what lies between them is interpolated',
    )
    parser.add_argument(
        '--validate',
        type=at_least(0),
        default=30,
        metavar='N',
        help='random networks measured as a whole: on half of them the overhead of a network is '
        'fitted, on the others the prediction is tested (default: 30; 0 for neither)',
    )
    add_measuring_arguments(parser, DEFAULTS, 'those in `latency` of the config')
    return parser.parse_args()


def make_folder(path: str) -> None:
    """Find out before measuring, not after it, that the file cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'cannot make the folder of {path}: {error.strerror}') from error
    if Path(path).is_dir():
        raise ConfigError(f'{path} is a folder: --out takes the path of a file')


def main() -> None:
    """Measure, print what was found and write the file."""
    args = parse_args()
    from prunet_mm.latency.build import MOST_WIDTHS, build_table
    from prunet_mm.latency.measure import Protocol

    config = load_config(args.config)
    if 'space' not in config:
        raise ConfigError(f'{args.config}: there is no search space: the config has to set `space`')
    space = SearchSpace.from_dict(config.space, source=f'{args.config}: space')
    latency = config.get('latency', config.get('model', {}).get('latency', {}))
    path = args.out or latency.get('table')
    if not path:
        raise ConfigError(f'{args.config}: sets no `latency.table`, so say --out PATH')
    settings = DEFAULTS.updated(latency, vars(args))
    make_folder(path)
    print(settings.header(), flush=True)
    with progress_bar(f'measuring the blocks of {space.name}') as progress:
        try:
            table, samples = build_table(
                space,
                settings.device,
                settings.batch,
                settings.threads,
                most_widths=None if args.full else MOST_WIDTHS,
                validate=args.validate,
                protocol=Protocol(max_seconds=settings.max_seconds),
                progress=progress,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f'interrupted: {path} was not written') from None
    print(
        f'protocol  {len(table.entries)} blocks, timed inside of random networks in '
        f'{samples.rounds} shuffled rounds, {samples.seconds:.0f} s; medians of '
        f'{samples.clock}\n'
    )
    print(space_summary(table, space) + '\n')
    if table.validation:
        print(
            f'{table.validation.describe()}\n(a network takes {table.network_overhead_ms:+.3f} ms '
            f'and {table.network_scale:.3f} times the sum of its blocks, fitted on '
            f'{table.validation.fitted_on} other networks)'
        )
    table.save(path)
    print(f'wrote {path}')


if __name__ == '__main__':
    run(main)
