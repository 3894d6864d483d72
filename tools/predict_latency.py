#!/usr/bin/env python
"""Estimate what networks cost on a GPU that is not at hand, from its datasheet.

Nothing is measured here. Where NVIDIA has published a figure, it is printed beside the estimate.

python tools/predict_latency.py prunet_p0 gpunet_1 --device v100 --batch 1 8 64
python tools/predict_latency.py work_dirs/prunet_v100/subnet.json --table v100_trt_fp16_b1
python tools/predict_latency.py configs/search/prunet_v100.py --device a100 --save-table a100.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.engine.cli import load_config, require_output, run
from prunet_mm.engine.shipped import shipped_config
from prunet_mm.errors import ConfigError
from prunet_mm.latency.limits import printed_limits

if TYPE_CHECKING:
    from prunet_mm.latency import LatencyTable
    from prunet_mm.spec import NetworkSpec, SearchSpace


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'targets',
        nargs='+',
        metavar='TARGET',
        help='a name in the zoo, a JSON file that a search wrote, a config of a classifier on a '
        'PRUNet, or a search config, which stands for the smallest and the largest of its networks',
    )
    parser.add_argument('--device', help='v100 or a100 (default: v100)')
    parser.add_argument('--batch', nargs='+', metavar='N', help='images per pass (default: 1)')
    parser.add_argument(
        '--table',
        metavar='PATH|NAME',
        help='add up the blocks of this latency table instead; device and batch are its own',
    )
    parser.add_argument('--json', action='store_true', help='print records instead of a table')
    parser.add_argument(
        '--save-table',
        metavar='PATH',
        help='also write an estimated latency table of the one search config that is given',
    )
    return parser.parse_args()


def main() -> None:
    """Estimate and print."""
    args = parse_args()
    if args.table and (args.device or args.batch or args.save_table):
        raise ConfigError(
            '--table has a device and a batch of its own: leave out --device, --batch and '
            '--save-table'
        )
    name = args.device or 'v100'
    batches = [whole_number(text) for text in args.batch or ['1']]

    from prunet_mm.estimates.roofline import Roofline, estimated_table, find_device
    from prunet_mm.latency import LatencyTable

    device = find_device(name)
    if args.save_table:
        require_output(args.save_table, '--save-table')
        if len(args.targets) != 1 or len(batches) != 1 or not is_config(args.targets[0]):
            raise ConfigError('--save-table takes one search config and one --batch')
        table = estimated_table(load_space(args.targets[0]), device, batches[0])
        table.save(args.save_table)
    if args.table:
        known = LatencyTable.load(args.table)
        cost = known.block_ms
    else:
        cost = partial(Roofline.load().block_ms, device=device, batch=batches[0])
    targets = [load_target(target, cost) for target in args.targets]
    records = by_table(targets, known) if args.table else by_roofline(targets, name, batches)
    if args.json:
        print(json.dumps(records, indent=2))
    else:
        print(header(records[0], args) + '\n\n' + rows(records))
        if args.save_table:
            print(f'\nwrote {args.save_table}: {table.describe()}')


def whole_number(text: str) -> int:
    """A batch from the command line; raises a `ConfigError` unless it is 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f'--batch {text}: expected a whole number of at least 1')
    return int(text)


def is_config(target: str) -> bool:
    """Whether a target is the path of a config, or the name of one that is shipped."""
    return target.endswith('.py') or shipped_config(target, 'search') is not None


def load_target(target: str, cost: Callable) -> list[tuple[str, NetworkSpec]]:
    """The network that a target stands for, or the two ends of a space, with what to call them.

    The ends are its fastest and its slowest network, by the ``cost`` of a block in ms.
    """
    from prunet_mm.spec import NetworkSpec, load_zoo

    if not is_config(target):
        is_path = target.endswith('.json') or Path(target).exists()
        return [(target, NetworkSpec.load(target) if is_path else load_zoo(target))]
    config = load_config(target, first='search')
    if 'space' in config:
        space = load_space(target)
        return [
            (f'{target}: {end.name}', end) for end in (space.smallest(cost), space.largest(cost))
        ]
    model = config.get('model', {})
    backbone = model.get('backbone', {})
    classifier = model.get('type', '').endswith('Classifier')
    if not classifier or backbone.get('type') not in ('PRUNet', 'mmpretrain.PRUNet'):
        raise ConfigError(f'{target}: only the latency of a classifier on a PRUNet is estimated')
    from prunet_mm.models.prunet import load_arch

    return [(target, load_arch(backbone.get('arch')))]


def load_space(path: str) -> SearchSpace:
    """The search space of a config."""
    from prunet_mm.spec import SearchSpace

    config = load_config(path, first='search')
    if 'space' not in config:
        raise ConfigError(f'{path}: there is no search space: the config has to set `space`')
    return SearchSpace.from_dict(config.space, source=f'{path}: space')


def printed(
    named: list[tuple[str, NetworkSpec]], predict_ms: Callable[[NetworkSpec], float]
) -> Iterator[tuple[str, NetworkSpec, str]]:
    """Names, networks and their latencies, the limits of a space rounded inwards.

    So each of these, typed back as the budget of a search, is one that it accepts.
    """
    names, specs = zip(*named, strict=True)
    found_ms = [predict_ms(spec) for spec in specs]
    rounded = printed_limits(*found_ms) if len(named) > 1 else [f'{ms:.4f}' for ms in found_ms]
    return zip(names, specs, rounded, strict=True)


def by_roofline(
    targets: list[list[tuple[str, NetworkSpec]]], name: str, batches: list[int]
) -> list[dict[str, object]]:
    """A record per network and batch, by the model of the device."""
    from prunet_mm.estimates.published import find_published
    from prunet_mm.estimates.roofline import Roofline, find_device, load_fit

    model, device, fit = Roofline.load(), find_device(name), load_fit()
    return [
        dict(
            target=target,
            network=spec.name,
            device=name,
            device_name=device.name,
            batch=batch,
            latency_ms=float(latency_ms),
            kind='estimated',
            source='prunet_mm.estimates.roofline',
            backend=fit['backend'],
            dtype='float16',
            protocol=fit['protocol'],
            mean_error_left_out=fit['errors'][device.published_as]['left_out'],
            published_ms=find_published(spec, device.published_as, batch),
        )
        for named in targets
        for batch in batches
        for target, spec, latency_ms in printed(
            named, partial(model.predict_ms, device=device, batch=batch)
        )
    ]


def by_table(
    targets: list[list[tuple[str, NetworkSpec]]], table: LatencyTable
) -> list[dict[str, object]]:
    """A record per network, by a latency table; its kind is the table's."""
    return [
        dict(
            target=target,
            network=spec.name,
            device=table.device,
            batch=table.batch,
            latency_ms=float(latency_ms),
            kind=table.kind,
            source=table.source,
            backend=table.backend,
            dtype=table.dtype,
            protocol=table.describe(),
        )
        for named in targets
        for target, spec, latency_ms in printed(named, table.predict_ms)
    ]


def header(record: dict[str, object], args: argparse.Namespace) -> str:
    """What the figures are and how far to trust them."""
    if args.table:
        kind = 'ESTIMATED' if record['kind'] == 'estimated' else 'a sum of measured blocks'
        return f'{kind}: table {args.table}, {record["protocol"]}'
    from prunet_mm.estimates.roofline import load_fit

    fit = load_fit()
    return (
        f'ESTIMATED, not measured: {record["device_name"]}.\n'
        f'Protocol of what is estimated and of what is published: {record["protocol"]}.\n'
        f'Mean error {record["mean_error_left_out"]:.1%} on networks left out of the fit '
        f'({", ".join(fit["networks"])},\nby turns, batch 1 to 64); for networks of another kind '
        'it is not known.'
    )


def rows(records: list[dict[str, object]]) -> str:
    """A row per record, aligned."""
    from prunet_mm.engine.text import text_table

    kind = 'ESTIMATED' if records[0]['kind'] == 'estimated' else 'predicted'
    published = any(record.get('published_ms') for record in records)
    found = [['target', 'batch', f'{kind} [ms]'] + ['published [ms]', 'ratio'] * published]
    for record in records:
        row = [str(record['target']), str(record['batch']), f'{record["latency_ms"]:g}']
        if known := record.get('published_ms'):
            row += [f'{known:.2f}', f'{record["latency_ms"] / known:.3f}']
        found.append(row + ['-'] * (len(found[0]) - len(row)))
    return text_table(found)


if __name__ == '__main__':
    run(main)
