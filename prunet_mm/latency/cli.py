"""What the latency tools share: arguments, header, progress bar, text tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from prunet_mm.latency.table import LatencyTable
from prunet_mm.spec import Position, SearchSpace


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


@dataclass(frozen=True)
class Settings:
    """Where and how to measure.

    Attributes:
        device: 'cpu', 'cuda' or 'cuda:N'.
        batch: Images per pass.
        threads: CPU threads.
        max_seconds: Measure about this long at most.
    """

    device: str = 'cpu'
    batch: int = 1
    threads: int = 1
    max_seconds: float = 30.0

    def updated(self, *others: Mapping[str, Any]) -> Settings:
        """These settings, replaced by those of ``others`` that are there and not None."""
        for other in others:
            known = {name: other.get(name) for name in asdict(self)}
            self = replace(self, **{name: value for name, value in known.items() if value})
        return self

    def header(self) -> str:
        """Device, software and settings, which every measured number is printed with."""
        from prunet_mm.latency.device import device_name, software

        versions = ', '.join(f'{name} {version}' for name, version in software(self.device).items())
        threads = f'{self.threads} CPU thread{"s"[: self.threads - 1]}'
        return (
            f'device    {device_name(self.device)}{_load()}\n'
            f'software  {versions}\n'
            f'settings  eager, float32, batch {self.batch}, {threads}'
        )


def _load() -> str:
    """How busy the machine is; measure on an idle one."""
    if not hasattr(os, 'getloadavg'):  # Windows
        return ''
    return f', {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}'


def add_measuring_arguments(
    parser: argparse.ArgumentParser, defaults: Settings, source: str
) -> None:
    """Adds an argument per setting, None where it is left out.

    Args:
        parser: What to add them to.
        defaults: What `Settings.updated` starts from.
        source: What goes before the defaults, in words.
    """
    group = parser.add_argument_group('measuring', f'Defaults are {source}, or else these.')
    group.add_argument('--device', help=f'cpu, cuda or cuda:N ({defaults.device})')
    group.add_argument('--batch', type=at_least(1), help=f'images per pass ({defaults.batch})')
    group.add_argument('--threads', type=at_least(1), help=f'CPU threads ({defaults.threads})')
    group.add_argument(
        '--max-seconds',
        type=at_least(0.1, float),
        help='stop after about this long, or before it where all medians are known to 1 %% '
        f'({defaults.max_seconds:g})',
    )


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[float], None]]:
    """A bar with the time left on stderr; gives what to call with the part done, 0 to 1."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(task),
        BarColumn(),
        TextColumn('{task.percentage:3.0f} %, left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        job = bar.add_task(task, total=1.0)
        yield lambda done: bar.update(job, completed=done)


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
