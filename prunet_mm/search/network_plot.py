"""A picture of a network beside what its search space allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prunet_mm.search.figures import INK, OPS, OTHER_OP, PALE, picture, tinted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from prunet_mm.spec import NetworkSpec, SearchSpace
    from prunet_mm.spec.summary import Row

NAMES = dict(
    conv='conv: convolution',
    ds='ds: depthwise separable convolution',
    irb='irb: inverted residual block',
    fused_irb='fused_irb: fused inverted residual block',
    shortcut='shortcut: 1x1 convolution without activation',
    tail='tail: classifier',
)


class Column(NamedTuple):
    """One block of the network, or a position that it skips.

    Attributes:
        name: Of the position: 'stem', 'stage2.layer1' or 'tail'.
        row: The block; None where it is skipped.
        widest: Largest hidden width that the space allows here; 0 where none is searched.
        latency_ms: Of the block, where it is known.
    """

    name: str
    row: Row | None
    widest: int
    latency_ms: float | None


def plot_network(
    spec: NetworkSpec,
    space: SearchSpace,
    path: str | Path,
    removed: Collection[str] = (),
    block_ms: Sequence[float] | None = None,
    table_kind: str = 'measured',
) -> Path:
    """Draw a network from input to output, a column per block, next to what was possible.

    Args:
        spec: A network of ``space``.
        space: Where it was found.
        path: Where the PNG goes.
        removed: Names of the positions that it skips, such as 'stage2.layer2'. Without them the
            last ones of a stage count as skipped, since all but a stage's first are alike.
        block_ms: Latency of each of ``spec.block_keys()`` in ms.
        table_kind: Of the table these are from, 'measured' or 'estimated'.

    Raises:
        ImportError: matplotlib is not installed.
    """
    columns = columns_of(spec, space, removed, block_ms)
    skipped = sum(column.row is None for column in columns)
    title = f'The network {spec.name}'
    lead = (
        f'{spec.params():,} parameters, {spec.macs():,} MACs at {spec.resolution} px. '
        f'Bars: hidden width in channels; frames: the widest allowed.'
        + (f' {skipped} of {len(columns)} blocks skipped.' if skipped else '')
    )
    facts = _facts(columns)
    width = max(0.42 * len(columns) + 1.6, 11)
    table, latency = 0.19 * len(facts) + 0.1, 1.3 if block_ms else 0
    top, bottom, bars = 1.25, 0.35, 2.4
    height = top + bars + table + latency + bottom
    with picture(path, (width, height), title, lead) as figure:

        def axes_at(low: float, size: float) -> Axes:
            left = 0.95 / width
            axes = figure.add_axes((left, low / height, 1 - left - 0.15 / width, size / height))
            axes.set_xlim(-0.6, len(columns) - 0.4)
            axes.set_xticks([])
            axes.grid(False)
            return axes

        upper = axes_at(height - top - bars, bars)
        _draw_widths(upper, columns)
        _draw_stages(upper, columns)
        _draw_facts(upper, columns, facts, bars)
        _draw_legend(figure, columns, height)
        if block_ms:
            _draw_latency(axes_at(bottom, latency - 0.25), columns, table_kind)
        label = 'blocks in the order in which an image passes them'
        figure.text(0.5, 0.1 / height, label, ha='center', fontsize=8.5)
    return Path(path)


def columns_of(
    spec: NetworkSpec,
    space: SearchSpace,
    removed: Collection[str] = (),
    block_ms: Sequence[float] | None = None,
) -> list[Column]:
    """Return the columns of the picture; arguments as for :func:`plot_network`."""
    times = block_ms or [None] * len(spec.block_keys())
    blocks = list(zip(spec.rows(), times, strict=True))
    columns = [Column(row.name, row, 0, ms) for row, ms in blocks[: len(spec.stem)]]
    left = {}
    for layer, block in zip(spec.layers, blocks[len(spec.stem) :], strict=False):
        left.setdefault(layer.stage, []).append(block)
    positions = {}
    for position in space.positions():
        positions.setdefault(position.stage, []).append(position)
    for stage, places in positions.items():
        alive = [place.name for place in places if place.name not in removed]
        if len(alive) != len(left[stage]):
            alive = [place.name for place in places[: len(left[stage])]]
        filled = dict(zip(alive, left[stage], strict=True))
        for place in places:
            widest = max((c.widths[-1] for c in place.candidates if c.widths), default=0)
            row, ms = filled.get(place.name, (None, None))
            columns.append(Column(place.name, row, widest, ms))
    if spec.tail:
        row, ms = blocks[-1]
        columns.append(Column(row.name, row, 0, ms))
    return columns


def _color(column: Column) -> str:
    return OPS.get(column.row.key.op, OTHER_OP)


def _draw_widths(axes: Axes, columns: Sequence[Column]) -> None:
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel('hidden width\nin % of the widest allowed')
    for x, column in enumerate(columns):
        row = column.row
        hidden = row.key.hidden if row and column.widest else 0
        if row is None:
            _frame(axes, x, linestyle=(0, (3, 3)))
            _note(axes, x, 'skipped', PALE)
        elif hidden:
            _frame(axes, x)
            axes.bar(x, 100 * hidden / column.widest, 0.72, color=_color(column))
            low = hidden < 0.85 * column.widest
            axes.annotate(
                str(hidden),
                (x, 100 * hidden / column.widest),
                xytext=(0, 2 if low else -2),
                textcoords='offset points',
                ha='center',
                va='bottom' if low else 'top',
                fontsize=7.5,
                color=INK if low else 'white',
            )
        else:
            axes.bar(x, 100, 0.72, color=tinted(_color(column), 0.8))
            searched = column.name not in ('stem', 'tail')
            _note(axes, x, 'no hidden width' if searched else 'not searched', INK)


def _frame(axes: Axes, x: int, linestyle='-') -> None:
    axes.bar(x, 100, 0.72, facecolor='none', edgecolor=PALE, linewidth=0.8, linestyle=linestyle)


def _note(axes: Axes, x: int, text: str, color: str) -> None:
    axes.text(x, 50, text, rotation=90, ha='center', va='center', fontsize=7.5, color=color)


def _draw_stages(axes: Axes, columns: Sequence[Column]) -> None:
    """Name the stages above their columns."""
    stages = {}
    for x, column in enumerate(columns):
        stages.setdefault(column.name.partition('.')[0], []).append(x)
    for name, places in stages.items():
        over = dict(transform=axes.get_xaxis_transform(), clip_on=False)
        axes.plot([places[0] - 0.4, places[-1] + 0.4], [1.04] * 2, color=PALE, linewidth=1, **over)
        middle, label = (places[0] + places[-1]) / 2, name.replace('stage', 'stage ')
        axes.text(middle, 1.06, label, ha='center', va='bottom', fontsize=7.5, **over)


def _facts(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Lines of the table below the bars: their label, and a cell per block that is there."""
    keys = [column.row and column.row.key for column in columns]
    facts = {
        'kernel': [f'k{key.kernel}' if key else '' for key in keys],
        'stride': [str(key.stride) if key else '' for key in keys],
        'SE': [str(key.se or '-') if key else '' for key in keys],
        'channels out': [str(key.out_channels) if key else '' for key in keys],
        'output, px': [str(column.row.height) if column.row else '' for column in columns],
    }
    if not any(key and key.se for key in keys):
        del facts['SE']
    return facts


def _draw_facts(axes: Axes, columns: Sequence[Column], facts: dict, bars: float) -> None:
    over = dict(transform=axes.get_xaxis_transform(), clip_on=False, va='center', fontsize=7.5)
    for line, (label, cells) in enumerate(facts.items()):
        y = -(0.15 + 0.19 * line) / bars
        axes.text(-0.008, y, label, ha='right', **(over | dict(transform=axes.transAxes)))
        for x, cell in enumerate(cells):
            strong = label == 'stride' and cell == '2'
            axes.text(x, y, cell, ha='center', weight='bold' if strong else 'normal', **over)


def _draw_latency(axes: Axes, columns: Sequence[Column], table_kind: str) -> None:
    times = [column.latency_ms or 0.0 for column in columns]
    total = sum(times)
    axes.set_ylabel(f'share of latency\nin % ({table_kind} table)')
    colors = [_color(column) if column.row else PALE for column in columns]
    axes.bar(range(len(columns)), [100 * ms / total for ms in times], 0.72, color=colors)
    axes.margins(y=0.2)
    for x, (ms, column) in enumerate(zip(times, columns, strict=True)):
        if column.row:
            share = 100 * ms / total
            label = f'{share:.0f}' if share >= 1 else '<1'
            axes.text(x, share, label, ha='center', va='bottom', fontsize=7.5)


def _draw_legend(figure: Figure, columns: Sequence[Column], height: float) -> None:
    from matplotlib.patches import Patch

    ops = dict.fromkeys(column.row.key.op for column in columns if column.row)
    handles = [Patch(color=OPS.get(op, OTHER_OP), label=NAMES[op]) for op in ops]
    figure.legend(
        handles=handles,
        loc='upper left',
        bbox_to_anchor=(0, 1 - 0.55 / height),
        ncols=len(handles),
        fontsize=8.5,
    )
