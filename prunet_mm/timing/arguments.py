"""What the tools that measure share: their arguments, and the header of what they print."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunet_mm.timing.backends import BACKENDS, find_backend
from prunet_mm.timing.device import cores, device_name, software
from prunet_mm.timing.settings import DTYPES, Settings, require_number

DEFAULTS = dict(
    device='cpu',
    backend='eager',
    dtype='float32',
    batch=1,
    threads=1,
    precision=0.01,
    max_seconds=30.0,
)


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
    try:
        return find_backend(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def several(parse: Callable[[str], Any]) -> Callable[[str], tuple]:
    """An argparse type: values that commas separate, each parsed alike, each taken once."""
    return lambda text: tuple(dict.fromkeys(parse(part.strip()) for part in text.split(',')))


def chosen(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """All of `DEFAULTS`, each from the last source that has it and not None.

    Raises:
        ConfigError: Precision or seconds are no number above 0.
    """
    found = dict(DEFAULTS)
    for source in sources:
        found |= {name: source[name] for name in DEFAULTS if source.get(name) is not None}
    for name in ('precision', 'max_seconds'):
        require_number(name, found[name], float)
    return found


def header(settings: Sequence[Settings]) -> str:
    """Device, software and settings, which every measured number is printed with."""
    first = settings[0]
    backends, batches = (
        list(dict.fromkeys(str(getattr(one, name)) for one in settings))
        for name in ('backend', 'batch')
    )
    found = software(first.device, backends)
    versions = ', '.join(f'{name} {version}' for name, version in found.items())
    threads = f'{first.threads} CPU thread{"s"[: first.threads - 1]}'
    return (
        f'device    {device_name(first.device)}{_load()}\n'
        f'software  {versions}\n'
        f'settings  {" and ".join(backends)}, {first.dtype}, batch {" and ".join(batches)}, '
        f'{threads}'
    )


def _load() -> str:
    """How busy the machine is; measure on an idle one."""
    if not hasattr(os, 'getloadavg'):  # Windows
        return ''
    return f', {cores()} cores with a load of {os.getloadavg()[0]:.1f}'


def add_measuring_arguments(
    parser: argparse.ArgumentParser, source: str, compare: bool = False, **defaults: Any
) -> None:
    """Adds an argument per setting, None where it is left out.

    Args:
        parser: What to add them to.
        source: What goes before the defaults, in words.
        compare: Whether several backends and batches can be given, separated by commas.
        defaults: What is other than in `DEFAULTS`.
    """
    defaults = DEFAULTS | defaults
    group = parser.add_argument_group('measuring', f'Defaults are {source}, or else these.')
    many, more = (several, ', or several: A,B') if compare else (lambda parse: parse, '')
    group.add_argument('--device', help=f'cpu, cuda or cuda:N ({defaults["device"]})')
    group.add_argument(
        '--backend',
        type=many(backend),
        help=f'{", ".join(BACKENDS)}{more} ({defaults["backend"]})',
    )
    group.add_argument('--dtype', choices=DTYPES, help=f'what to compute in ({defaults["dtype"]})')
    group.add_argument(
        '--batch', type=many(at_least(1)), help=f'images per pass{more} ({defaults["batch"]})'
    )
    group.add_argument('--threads', type=at_least(1), help=f'CPU threads ({defaults["threads"]})')
    group.add_argument(
        '--precision',
        type=lambda text: at_least(0.01, float)(text) / 100,
        metavar='PERCENT',
        help='stop when every median is known this well, with a confidence of 95 %% '
        f'({100 * defaults["precision"]:g})',
    )
    group.add_argument(
        '--max-seconds',
        type=at_least(0.1, float),
        help=f'stop after about this long even so ({defaults["max_seconds"]:g})',
    )
