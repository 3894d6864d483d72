"""Tables of plain text, as the tools print them."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under a first row of titles: the first column to the left, the others to the right."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(size) for cell, size in zip(others, sizes[1:], strict=True)]
        lines.append('  '.join([first.ljust(sizes[0]), *cells]).rstrip())
    return '\n'.join(lines)
