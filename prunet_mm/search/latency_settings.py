"""Does a latency table hold for what a config says it is for?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from prunet_mm.errors import ConfigError
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.validation import LEAST_TAU, MOST_MAPE

# What a table is of; that of its device is only warned of, since it may be searched for from afar.
_OF_TABLE = ('batch', 'threads', 'backend', 'dtype')
_KNOWN = {
    *('table', 'budget_ms', 'budget_ratio', 'targets_ms', 'device', *_OF_TABLE),
    *('precision', 'max_seconds'),  # read when a table is built
}


def require_settings(table: LatencyTable, latency: Mapping) -> None:
    """Refuses settings of ``model.latency`` that are not those of its table, or unknown.

    Raises:
        ConfigError: Names the setting, both values and what to do.
    """
    require_known(latency)
    device = latency.get('device', 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', device):
        raise ConfigError(f'model.latency.device is {device}: choose cpu, cuda or cuda:N')
    for name, value in latency.items():
        found = getattr(table, name) if name in _OF_TABLE else value
        if value not in (None, found):
            option = shlex.quote(f'model.latency.{name}={found}')
            raise ConfigError(
                f'model.latency.{name} is {value}, but the table {table.source} is '
                f'{table.describe()}: build one for {value} with tools/build_latency_table.py, or '
                f'search with this one by --cfg-options {option}'
            )


def require_known(latency: Mapping) -> None:
    """Raises a `ConfigError` that names a setting of ``model.latency`` that does not exist."""
    for name in latency:
        if name not in _KNOWN:
            raise ConfigError(
                f'model.latency.{name}: there is no such setting, only {", ".join(sorted(_KNOWN))}'
            )


def doubt(table: LatencyTable) -> str:
    """What to say of a table that did not predict its own validation well, or ''."""
    found = table.validation
    if found is None or found.good:
        return ''
    return (
        f'The latency table {table.source} is not good enough to rank networks by: '
        f'{found.describe()}, while a Kendall tau of {LEAST_TAU} and an error of {MOST_MAPE:.0%} '
        'are asked for. Measure it longer, on an idle machine (tools/build_latency_table.py '
        '--fresh --max-seconds), or measure what the search finds with care.'
    )


def size_warning(table: LatencyTable, resolution: int, size: tuple[int, int]) -> str:
    """What to say of images whose (height, width) is not the one that latencies are of, or ''."""
    if size == (resolution, resolution):
        return ''
    return (
        f'Images of {size[0]} x {size[1]} px are searched on, while the latencies by '
        f'{table.source} are of {resolution} x {resolution} px (space.resolution): the budget is '
        'kept for that size, not for the one of the images.'
    )
