"""Makes one latency table of several that were measured alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prunet_mm.errors import LatencyTableError
from prunet_mm.latency.table import SHARED, Entry, LatencyTable
from prunet_mm.spec import BlockKey

FIT = ('network_overhead_ms', 'network_scale', 'validation')


def merge(tables: Sequence[LatencyTable]) -> LatencyTable:
    """The blocks of all tables in one; order and grouping of the tables do not matter.

    Of a block that several have, the entry with the most samples stays, among those the one with
    the least spread. What does not hold for the whole is left to its parts, which ``protocol``
    lists: versions in which they differ, and the fit to whole networks with its validation unless
    all have the same.

    Args:
        tables: At least one.

    Raises:
        LatencyTableError: Two of them differ in kind, device, backend, dtype, batch or threads.
    """
    first = tables[0]
    for table in tables:
        _check_alike(first, table)
    entries: dict[BlockKey, Entry] = {}
    for table in tables:
        for entry in table.entries:
            entries[entry.key] = min(entries.get(entry.key, entry), entry, key=_rank)
    parts = {_text(part): part for table in tables for part in _parts(table)}
    same_fit = all(getattr(first, name) == getattr(table, name) for table in tables for name in FIT)
    return LatencyTable(
        **{name: getattr(first, name) for name in (*SHARED, *(FIT if same_fit else ()))},
        software={
            name: version
            for name, version in sorted(first.software.items())
            if all(name in t.software and t.software[name] == version for t in tables)
        },
        date=max(table.date for table in tables),
        protocol=dict(merged=[parts[text] for text in sorted(parts)]),
        entries=sorted(entries.values(), key=lambda entry: entry.key.order),
    )


def _check_alike(first: LatencyTable, other: LatencyTable) -> None:
    for name in SHARED:
        ours, theirs = getattr(first, name), getattr(other, name)
        if ours != theirs:
            raise LatencyTableError(
                f'{first.source} and {other.source} cannot be merged: {name} is {ours} in one and '
                f'{theirs} in the other'
            )


def _rank(entry: Entry) -> tuple:
    """The least is the best; it decides fully, or the order of the tables would matter."""
    return -entry.samples, entry.iqr_ms, entry.latency_ms


def _parts(table: LatencyTable) -> list[dict[str, Any]]:
    """The provenance of a table, or of what it was merged from."""
    if 'merged' in table.protocol:
        return table.protocol['merged']
    names = ('date', 'software', 'protocol', 'network_overhead_ms', 'network_scale')
    return [{name: getattr(table, name) for name in names} | dict(entries=len(table.entries))]


def _text(part: dict[str, Any]) -> str:
    return json.dumps(part, sort_keys=True)
