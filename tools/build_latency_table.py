#!/usr/bin/env python
"""Measure what every block of a config's search space costs on this device.

Blocks are timed inside of random networks of the space, in shuffled rounds, and at the end the
table's prediction is tested on random networks that were measured as a whole. A run that was
interrupted or killed goes on where it was when the same command is given again.

    python tools/build_latency_table.py configs/search/prunet_digits.py
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from prunet_mm.engine.cli import load_config, require_output, run
from prunet_mm.engine.progress import progress_bar
from prunet_mm.errors import ConfigError
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.summary import space_summary
from prunet_mm.latency.table import shipped
from prunet_mm.search.latency_settings import doubt, require_known
from prunet_mm.spec import SearchSpace
from prunet_mm.timing import Settings
from prunet_mm.timing.arguments import add_measuring_arguments, at_least, chosen, header
from prunet_mm.timing.settings import require_number

DEFAULTS = dict(batch=64, max_seconds=180.0)
BUSY = 0.02  # share of its time that a block may wait for a core before that is said


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config', help='a search config: a file that sets `space`, or the name of a shipped one'
    )
    parser.add_argument('--out', help='the file to write; by default `latency.table` of the config')
    parser.add_argument(
        '--validate',
        type=at_least(0),
        default=30,
        metavar='N',
        help='random networks measured as a whole: on half of them the overhead of a network is '
        'fitted, on the others the prediction is tested (default: 30; 0 for neither)',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='start anew where an interrupted run could go on'
    )
    add_measuring_arguments(parser, 'those in `latency` of the config', **DEFAULTS)
    return parser.parse_args()


def main() -> None:
    """Measure, print what was found and write the file."""
    args = parse_args()
    config = load_config(args.config, first='search')
    if 'space' not in config:
        raise ConfigError(f'{args.config}: there is no search space: the config has to set `space`')
    space = SearchSpace.from_dict(config.space, source=f'{args.config}: space')
    latency = config.get('latency', config.get('model', {}).get('latency', {}))
    require_known(latency)
    path = output_path(args, latency.get('table'))
    found = chosen(DEFAULTS, latency, vars(args))
    protocol = {name: found.pop(name) for name in ('precision', 'max_seconds')}
    settings = Settings(**found)
    settings.require()

    # Only now, since they import torch.
    from prunet_mm.latency.build import PROTOCOL, Plan, build_table
    from prunet_mm.latency.validate import plot_validation

    plan = Plan(space, settings, args.validate, **wanted(latency))
    journal = Path(f'{path}.journal')
    print(header([settings]), flush=True)
    if journal.exists() and not args.fresh:
        print(f'going on  with what an interrupted run has measured: {journal}', flush=True)
    with progress_bar(f'measuring the blocks of {space.name}') as progress:
        try:
            table = build_table(plan, replace(PROTOCOL, **protocol), journal, args.fresh, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f'interrupted: {path} was not written; what was measured is in {journal}, and the '
                'same command goes on from there'
            ) from None
    table.save(path)
    journal.unlink()
    print(summary(table) + '\n\n' + space_summary(table, space))
    if table.validation:
        print('\n' + table.validation.describe())
        if doubts := doubt(LatencyTable.load(path)):
            print(doubts)
        plot_validation(table, picture := Path(path).with_suffix('.png'))
        print(f'wrote {picture}')
    print(f'wrote {path}')


def wanted(latency: Mapping) -> dict:
    """Near which latencies networks are timed as a whole: the config's budgets."""
    for name in ('budget_ms', 'budget_ratio', 'targets_ms'):
        if (asked := latency.get(name)) is not None:
            budgets = tuple(asked) if isinstance(asked, (list, tuple)) else (asked,)
            for budget in budgets:
                require_number(name, budget, float)
            return dict(budgets=budgets, ratios=name == 'budget_ratio')
    return {}


def output_path(args: argparse.Namespace, table: str | None) -> str:
    """The file to write: --out, or else the ``table`` of the config."""
    if args.out:
        require_output(args.out, '--out')
        return args.out
    if not table:
        raise ConfigError(f'{args.config}: sets no `latency.table`, so say --out PATH')
    if shipped(table):
        raise ConfigError(
            f'{args.config}: `latency.table` is {table}, which comes with prunet_mm and is not '
            'replaced, so say --out PATH'
        )
    require_output(table, 'latency.table')
    return table


def summary(table: LatencyTable) -> str:
    """How the table was measured, and what was fitted, line by line."""
    protocol = table.protocol
    least, most = protocol['drift_divided_out']
    lines = [
        f'protocol  {len(table.entries)} blocks, {protocol["timed"]}, in {protocol["rounds"]} '
        f'shuffled rounds, {protocol["seconds"]:.0f} s; medians of {protocol["clock"]}',
        f'drift     {least:.3f} to {most:.3f}, divided out; of {protocol["anchor"]}',
    ]
    lines += [f'clocks    {said}' for said in protocol.get('clocks', ())]
    if (waited := protocol['waited_for_a_core']) > BUSY:
        lines.append(
            f'busy      blocks waited for a core {waited:.0%} of their time, since other processes '
            'had it: measure on an idle machine'
        )
    if table.validation:
        lines.append(
            f'network   {table.network_overhead_ms:+.3f} ms and {table.network_scale:.3f} times '
            f'the sum of its blocks, fitted on {table.validation.fitted_on} networks'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    run(main)
