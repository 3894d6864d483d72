"""What the latency tools share: arguments, header, text tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from prunet_mm.errors import ConfigError
from prunet_mm.latency.backends import BACKENDS
from prunet_mm.latency.table import LatencyTable
from prunet_mm.spec import Position, SearchSpace

DTYPES = 'float32', 'float16', 'bfloat16'
NUMBERS = dict(batch=int, threads=int, precision=(int, float), max_seconds=(int, float))


def at_least(smallest: float, kind: type = int) -> Callable[[str], float]:
    """An argparse type: a number that is not below ``smallest``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= smallest:
            name = 'a whole number' if kind is int else 'a number'
            raise argparse.ArgumentTypeError(
                f'expected {name} of at least {smallest}, not {text!r}'
            )
        return value

    return parse


def backend(text: str) -> str:
    """An argparse type: the name of a backend."""
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(f'no backend {text!r}, known are {", ".join(BACKENDS)}')
    return text


def several(parse: Callable[[str], Any]) -> Callable[[str], tuple]:
    """An argparse type: values that commas separate, each parsed alike, each taken once."""
    return lambda text: tuple(dict.fromkeys(parse(part.strip()) for part in text.split(',')))


@dataclass(frozen=True)
class Settings:
    """Where and how to measure.

    Attributes:
        device: 'cpu', 'cuda' or 'cuda:N'.
        backend: A key of `BACKENDS`; a comparison may have several.
        dtype: What is computed in, one of `DTYPES`.
        batch: Images per pass; a comparison may have several.
        threads: CPU threads.
        precision: Enough is measured when all medians are known this well, relatively (95 %).
        max_seconds: Measure about this long at most.

    Raises:
        ConfigError: A number is none, or not above 0.
    """

    device: str = 'cpu'
    backend: str | tuple[str, ...] = 'eager'
    dtype: str = 'float32'
    batch: int | tuple[int, ...] = 1
    threads: int = 1
    precision: float = 0.01
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, kind in NUMBERS.items():
            found = getattr(self, name)
            for value in found if isinstance(found, tuple) else (found,):
                if not isinstance(value, kind) or not value > 0:
                    whole = 'whole ' if kind is int else ''
                    raise ConfigError(
                        f'latency.{name} is {value!r}: expected a {whole}number above 0'
                    )

    def updated(self, *others: Mapping[str, Any]) -> Settings:
        """These settings, replaced by those of ``others`` that are there and not None."""
        for other in others:
            known = {name: other[name] for name in asdict(self) if other.get(name) is not None}
            self = replace(self, **known)
        return self

    def header(self) -> str:
        """Device, software and settings, which every measured number is printed with."""
        from prunet_mm.latency.device import device_name, software

        backends = self.backend if isinstance(self.backend, tuple) else (self.backend,)
        found = software(self.device, backends)
        versions = ', '.join(f'{name} {version}' for name, version in found.items())
        threads = f'{self.threads} CPU thread{"s"[: self.threads - 1]}'
        return (
            f'device    {device_name(self.device)}{_load()}\n'
            f'software  {versions}\n'
            f'settings  {_words(self.backend)}, {self.dtype}, batch {_words(self.batch)}, {threads}'
        )


def _words(values: Any) -> str:
    return ' and '.join(map(str, values)) if isinstance(values, tuple) else str(values)


def _load() -> str:
    """How busy the machine is; measure on an idle one."""
    if not hasattr(os, 'getloadavg'):  # Windows
        return ''
    return f', {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}'


def add_measuring_arguments(
    parser: argparse.ArgumentParser, defaults: Settings, source: str, compare: bool = False
) -> None:
    """Adds an argument per setting, None where it is left out.

    Args:
        parser: What to add them to.
        defaults: What `Settings.updated` starts from.
        source: What goes before the defaults, in words.
        compare: Whether several backends and batches can be given, separated by commas.
    """
    group = parser.add_argument_group('measuring', f'Defaults are {source}, or else these.')
    many, more = (several, ', or several: A,B') if compare else (lambda parse: parse, '')
    group.add_argument('--device', help=f'cpu, cuda or cuda:N ({defaults.device})')
    group.add_argument(
        '--backend',
        type=many(backend),
        help=f'{", ".join(BACKENDS)}{more} ({_words(defaults.backend)})',
    )
    group.add_argument('--dtype', choices=DTYPES, help=f'what to compute in ({defaults.dtype})')
    group.add_argument(
        '--batch', type=many(at_least(1)), help=f'images per pass{more} ({_words(defaults.batch)})'
    )
    group.add_argument('--threads', type=at_least(1), help=f'CPU threads ({defaults.threads})')
    group.add_argument(
        '--precision',
        type=lambda text: at_least(0.01, float)(text) / 100,
        metavar='PERCENT',
        help='stop when every median is known this well, with a confidence of 95 %% '
        f'({100 * defaults.precision:g})',
    )
    group.add_argument(
        '--max-seconds',
        type=at_least(0.1, float),
        help=f'stop after about this long even so ({defaults.max_seconds:g})',
    )


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under a first row of titles: the first column to the left, the others to the right."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(size) for cell, size in zip(others, sizes[1:], strict=True)]
        lines.append('  '.join([first.ljust(sizes[0]), *cells]).rstrip())
    return '\n'.join(lines)


def space_summary(table: LatencyTable, space: SearchSpace) -> str:
    """One row per place and candidate: the range of hidden widths and what they cost."""
    rows = [('layer', 'candidate', 'hidden', 'latency [ms]', 'widest : narrowest')]
    seen = set()
    for position in space.positions():
        if (same := _kind(position)) not in seen:
            seen.add(same)
            rows += _candidate_rows(table, position)
    return text_table(rows)


def _candidate_rows(table: LatencyTable, position: Position) -> list[tuple[str, ...]]:
    rows = []
    for candidate in position.candidates:
        ends = [min(candidate.widths, default=0), max(candidate.widths, default=0)]
        low, high = (
            table.block_ms(
                position.layer(candidate, end).block_key(position.height, position.width)
            )
            for end in ends
        )
        searched = len(candidate.widths) > 1
        rows.append(
            (
                position.name,
                candidate.name,
                f'{ends[0]} - {ends[1]}' if searched else str(ends[0] or ''),
                f'{low:.3f} - {high:.3f}' if searched else f'{low:.3f}',
                f'{high / low:.1f}' if searched else '',
            )
        )
    return rows


def _kind(position: Position) -> tuple:
    """What layers have in common whose blocks are the same."""
    return tuple(position.block_keys())
