"""Pictures of a search from its history: widths, candidates and latency, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.search.figures import GONE, INK, OPS, PALE, PINK, line_look, picture
from prunet_mm.search.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 600  # more points than this on a line are more than pixels
KEEP = dict(color=PINK, linestyle='-.', linewidth=1.6)
MARKS = dict(
    candidate=dict(marker='X', markersize=6, color=INK, markeredgecolor='white'),
    settled=dict(marker='D', markersize=4, color='white', markeredgecolor=INK),
)
LABELS = dict(candidate='candidate removed', settled='removed in settling', layer='layer removed')


def plot_widths(history: Sequence[dict], path: str | Path) -> Path:
    """Draw how the hidden widths walked: one panel per layer, one line per candidate.

    Args:
        history: Rows of a ``history.jsonl``, at least one.
        path: Where the PNG goes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    trace = Trace.of(history, POINTS)
    candidates = {}
    for name in trace.first['widths']:
        layer, _, candidate = name.rpartition('.')
        candidates.setdefault(layer, []).append(candidate)
    title = 'Hidden widths during the search'
    lead = (
        'Line: expected hidden width. Band: the two widths that the Prunode mixes. Above: '
        'the candidate left and its width, not yet rounded, of the widest allowed, in channels.'
    )
    label = 'hidden width\nin % of the widest allowed'
    with _panels(path, title, lead, label, candidates, trace) as panels:
        for layer, axes in panels.items():
            for candidate in candidates[layer]:
                end = trace.end(layer, candidate)

                def percent(what: str, name=f'{layer}.{candidate}', end=end) -> tuple[list, list]:
                    def value(row: dict) -> float | None:
                        width = row['widths'].get(name)
                        return width and 100 * width[what] / width['widest']

                    return trace.line(value, end)

                look, (steps, expected) = line_look(candidate), percent('expected')
                axes.fill_between(
                    steps, percent('lo')[1], percent('hi')[1],
                    color=look['color'], alpha=0.15, linewidth=0,
                )  # fmt: skip
                axes.plot(steps, expected, **look, **_dots(steps))
                _mark(axes, end, look['color'], expected[-1])
            axes.set_title(f'{layer}:  {trace.width_left(layer)}')
            axes.set_ylim(0, 104)
    return Path(path)


def plot_candidates(history: Sequence[dict], path: str | Path) -> Path:
    """Draw the candidates' probabilities and the keep coefficients, one panel per layer.

    Layers in which there was nothing to choose are left out. Arguments and errors are those of
    :func:`plot_widths`.
    """
    trace = Trace.of(history, POINTS)
    skippable = {layer for row in trace.rows for layer in row['keep']}
    candidates = {
        layer: list(chances)
        for layer, chances in trace.first['probabilities'].items()
        if len(chances) > 1 or layer in skippable
    }
    title = 'Candidates during the search'
    lead = 'Line: probability of a candidate block. Above each panel: what was left in the end.'
    more = {}
    if skippable:
        more = {'keep coefficient': KEEP}
        lead += ' A falling keep coefficient says that skipping the layer is winning.'
    label = 'probability or coefficient\n(no unit)'
    with _panels(path, title, lead, label, candidates, trace, more) as panels:
        for layer, axes in panels.items():
            for candidate in candidates[layer]:
                end = trace.end(layer, candidate)

                def chance(row: dict, layer=layer, candidate=candidate) -> float | None:
                    return row['probabilities'].get(layer, {}).get(candidate)

                steps, chances = trace.line(chance, end)
                look = line_look(candidate)
                axes.plot(steps, chances, **look, **_dots(steps))
                _mark(axes, end, look['color'], chances[-1])

            def keep(row: dict, layer=layer) -> float | None:
                return row['keep'].get(layer)

            steps, keeps = trace.line(keep, trace.end(layer))
            axes.plot(steps, keeps, **KEEP, **_dots(steps))
            axes.set_title(f'{layer}:  {trace.left(layer)}')
            axes.set_ylim(0, 1.04)
    return Path(path)


def plot_latency(
    history: Sequence[dict],
    path: str | Path,
    table_kind: str,
    predicted_ms: float | None = None,
    measured: tuple[float, float] | None = None,
) -> Path:
    """Draw the expected latency against the budget, and the multiplier that drives it there.

    Args:
        history: See :func:`plot_widths`.
        path: Where the PNG goes.
        table_kind: Of the latency table, 'measured' or 'estimated'.
        predicted_ms: Predicted latency of the derived network.
        measured: Median and interquartile range of its measured latency, both in ms.

    Raises:
        ImportError: matplotlib is not installed.
    """
    trace = Trace.of(history, POINTS)
    steps = [row['step'] for row in trace.rows]
    budget_ms = trace.last['target_ms']
    title = 'Latency during the search'
    lead = (
        'Above: expected latency of all networks that are still possible, and latency of the one '
        'derived in the end. Below: lambda, the price of latency in loss.'
    )
    with picture(path, (10, 5.6), title, lead) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        figure.subplots_adjust(left=0.1, right=0.8, top=0.88, bottom=0.09, hspace=0.12)
        _steps_axis(lower, trace, after=0.05)
        expected = [row['expected_ms'] for row in trace.rows]
        upper.plot(steps, expected, color=OPS['irb'], label='expected latency', **_dots(steps))
        falling = trace.line(lambda row: row['budget_ms'])
        upper.plot(*falling, color=INK, linewidth=1, label='budget on its way', **_dots(falling[0]))
        upper.axhline(
            budget_ms, color=INK, linestyle='--', linewidth=1, label=f'budget: {budget_ms:.4g} ms'
        )
        derived = [(event['step'], event['derived_ms']) for event in trace.judged]
        if derived:
            look = dict(color=OPS['fused_irb'], markersize=3, linestyle='')
            upper.plot(*zip(*derived, strict=True), 'd', label='derived at a decision', **look)
        end = lower.get_xlim()[1]
        if predicted_ms is not None:
            label = f'derived network,\npredicted: {predicted_ms:.4g} ms'
            look = dict(color=OPS['fused_irb'], markersize=6, linestyle='')
            upper.plot(steps[-1] + 0.4 * (end - steps[-1]), predicted_ms, 'D', label=label, **look)
        if measured is not None:
            median_ms, iqr_ms = measured
            at = steps[-1] + 0.8 * (end - steps[-1])
            label = f'derived network,\nmeasured: {median_ms:.4g} ms\n(bar: IQR, {iqr_ms:.2g} ms)'
            upper.plot(at, median_ms, 's', color=PINK, markersize=6, linestyle='', label=label)
            upper.vlines(at, median_ms - iqr_ms / 2, median_ms + iqr_ms / 2, color=INK, zorder=3)
        upper.set_ylabel(f'latency in ms ({table_kind} table)')
        upper.margins(y=0.12)
        _rug(upper, trace)
        for text, step in trace.milestones().items():
            upper.axvline(step, color=INK, linestyle=':', linewidth=1)
            place = dict(xycoords=('data', 'axes fraction'), textcoords='offset points')
            look = dict(rotation=90, ha='right', va='bottom', fontsize=7.5)
            upper.annotate(text, (step, 0.02), xytext=(-2, 0), **place, **look)
        upper.legend(loc='upper left', bbox_to_anchor=(1.01, 1.02), labelspacing=0.9)
        multiplier = [row['multiplier'] for row in trace.rows]
        lower.axhline(0, color=PALE, linewidth=0.7)
        average = [row['multiplier_average'] for row in trace.rows]
        lower.plot(steps, average, color=PALE, linewidth=1, label='its moving average')
        lower.plot(steps, multiplier, color=OPS['irb'], **_dots(steps))
        lower.legend(loc='upper left', bbox_to_anchor=(1.01, 1.02))
        lower.set_ylabel('multiplier λ\n(no unit)')
        lower.set_xlabel(_steps_label(trace))
        figure.align_ylabels()
    return Path(path)


def _dots(steps: Sequence) -> dict:
    """A line through very few points needs dots, or a single one would not be seen."""
    return dict(marker='o', markersize=3) if len(steps) < 5 else {}


def _mark(axes: Axes, end: dict | None, color: str, value: float) -> None:
    """Mark on the line, and on the axis of steps, where a candidate was removed."""
    if end and end['kind'] in MARKS:
        axes.axvline(end['step'], ymax=0.08, color=color, linewidth=1.5)
        axes.plot(end['step'], value, linestyle='', **MARKS[end['kind']])


def _rug(axes: Axes, trace: Trace) -> None:
    """Mark removals: candidates along the upper edge, layers with full lines."""
    for kind, label in LABELS.items():
        steps = [event['step'] for event in trace.removed if event['kind'] == kind]
        label = f'{label} ({len(steps)})'
        if kind in MARKS and steps:
            top = dict(transform=axes.get_xaxis_transform(), linestyle='')
            axes.plot(steps, [0.97] * len(steps), label=label, **top, **MARKS[kind])
        for step in steps if kind not in MARKS else ():
            axes.axvline(step, color=PALE, linewidth=1.6, label=label, zorder=1)
            label = None


def _steps_axis(axes: Axes, trace: Trace, after: float = 0.02) -> None:
    """Label the axis of steps with whole numbers, also where there is but one."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    first, last = trace.first['step'], trace.last['step']
    length = max(last - first, 1)
    axes.set_xlim(first - 0.02 * length, last + after * length)


def _steps_label(trace: Trace) -> str:
    first = trace.first['step']
    return 'step of the search' + (f' (warm-up up to {first - 1} not shown)' if first > 1 else '')


@contextmanager
def _panels(
    path: str | Path,
    title: str,
    lead: str,
    label: str,
    candidates: dict[str, list[str]],
    trace: Trace,
    more: dict[str, dict] | None = None,
) -> Iterator[dict[str, Axes]]:
    """One small panel per layer, by its name, with common axes and one legend above."""
    count = max(len(candidates), 1)
    lines = math.ceil(count / (4 if count <= 24 else 5))
    columns = math.ceil(count / lines)
    handles = _handles(candidates, trace, more or {})
    width = max(2.9 * columns, 11)
    legend_columns = int(width / 1.55)
    top = 0.95 + 0.2 * math.ceil(len(handles) / legend_columns)
    height = 1.75 * lines + top + 0.3
    with picture(path, (width, height), title, lead) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        figure.subplots_adjust(
            left=0.75 / width, right=1 - 0.2 / width, top=1 - top / height, bottom=0.5 / height,
            wspace=0.1, hspace=0.32,
        )  # fmt: skip
        middle = (0.5 + height - top) / 2 / height
        figure.text(
            0.1 / width, middle, label, rotation=90, ha='left', va='center',
            multialignment='center', fontsize=8.5,
        )  # fmt: skip
        figure.text(0.5, 0.08 / height, _steps_label(trace), ha='center', fontsize=8.5)
        figure.legend(
            handles=handles, loc='upper left', bbox_to_anchor=(0, 1 - 0.55 / height),
            ncols=legend_columns, fontsize=8.5, columnspacing=1.5, handlelength=2.6,
        )  # fmt: skip
        flat = list(grid.flat)
        for axes in flat[len(candidates) :]:
            axes.axis('off')
        for axes in flat[max(len(candidates) - columns, 0) : len(candidates)]:
            axes.tick_params(labelbottom=True)  # there may be no panel below
        if not candidates:
            flat[0].text(0.5, 0.5, 'There was nothing to choose.', ha='center')
        else:
            _steps_axis(flat[0], trace)
        for layer, axes in zip(candidates, flat, strict=False):
            if event := trace.end(layer):
                axes.axvspan(event['step'], flat[0].get_xlim()[1], color=GONE, zorder=0.5)
                axes.axvline(event['step'], color=INK, linewidth=1.6)
        yield dict(zip(candidates, flat, strict=False))


def _handles(candidates: dict[str, list[str]], trace: Trace, more: dict[str, dict]) -> list:
    """What the legend explains: only what can be seen."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = sorted({name for names in candidates.values() for name in names})
    looks = {name: line_look(name) for name in names} | more
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    kinds = {event['kind'] for event in trace.removed if event['layer'] in candidates}
    for kind, look in MARKS.items():
        if kind in kinds:
            handles.append(Line2D([], [], linestyle='', label=LABELS[kind], **look))
    if 'layer' in kinds:
        handles.append(Patch(facecolor=GONE, edgecolor=INK, label=LABELS['layer']))
    return handles
