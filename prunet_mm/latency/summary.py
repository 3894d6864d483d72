"""What a latency table says of a search space, as text."""

from __future__ import annotations

from prunet_mm.engine.text import text_table
from prunet_mm.latency.table import LatencyTable
from prunet_mm.spec import Position, SearchSpace


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
        ends = min(candidate.widths, default=0), max(candidate.widths, default=0)
        layers = [position.layer(candidate, end) for end in ends]
        size = position.height, position.width
        low, high = (table.block_ms(layer.block_key(*size)) for layer in layers)
        row = position.name, candidate.name
        if len(candidate.widths) > 1:
            row += f'{ends[0]} - {ends[1]}', f'{low:.3f} - {high:.3f}', f'{high / low:.1f}'
        else:
            row += str(ends[0] or ''), f'{low:.3f}', ''
        rows.append(row)
    return rows


def _kind(position: Position) -> tuple:
    """What layers have in common whose blocks are the same."""
    return tuple(position.block_keys())
