"""A network as a table: what every block is and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from prunet_mm.spec.kernels import BlockKey

if TYPE_CHECKING:
    from prunet_mm.spec.network import NetworkSpec


class Row(NamedTuple):
    """One block of a network.

    Attributes:
        name: 'stem', 'stage2.layer1' or 'tail'; both counts start at 1.
        key: The block with the size of its input.
        height: Rows of its *output*, in pixels; ``width`` its columns.
    """

    name: str
    key: BlockKey
    height: int
    width: int
    params: int
    macs: int


def rows(spec: NetworkSpec) -> list[Row]:
    """One row per block in the order of :meth:`NetworkSpec.block_keys`."""
    names = [_stem_name(index, len(spec.stem)) for index in range(len(spec.stem))]
    count = {}
    for layer in spec.layers:
        count[layer.stage] = count.get(layer.stage, 0) + 1
        names.append(f'stage{layer.stage}.layer{count[layer.stage]}')
    if spec.tail:
        names.append('tail')
    return [
        Row(name, key, *key.out_size, key.params(), key.macs())
        for name, key in zip(names, spec.block_keys(), strict=True)
    ]


def table(spec: NetworkSpec) -> str:
    """The rows as aligned text under a line with the totals."""
    head = ('layer', 'op', 'kernel', 'stride', 'channels', 'hidden', 'act', 'size', 'params')
    cells = [(*head, 'MACs'), *(_cells(row) for row in rows(spec))]
    title = (
        f'{spec.name}: {spec.resolution} x {spec.resolution} px, '
        f'{spec.params():,} parameters, {spec.macs():,} MACs'
    )
    return '\n'.join([title, *_aligned(cells)])


def _stem_name(index: int, count: int) -> str:
    return 'stem' if count == 1 else f'stem.layer{index + 1}'


def _cells(row: Row) -> tuple[str, ...]:
    key = row.key
    return (
        row.name,
        f'{key.op} + se {key.se}' if key.se else key.op,
        str(key.kernel),
        str(key.stride),
        f'{key.in_channels} -> {key.out_channels}',
        str(key.hidden or '-'),
        key.act,
        f'{row.height} x {row.width}',
        f'{row.params:,}',
        f'{row.macs:,}',
    )


def _aligned(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """Pads every column to its widest cell; names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        '  '.join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
