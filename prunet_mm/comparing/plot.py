"""The picture of a comparison: how the samples of every row are spread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunet_mm.comparing.results import FAILED, title
from prunet_mm.engine.files import save_figure

if TYPE_CHECKING:
    from prunet_mm.comparing.benchmark import Benchmark
    from prunet_mm.comparing.results import Record

INK, PALE = '#0072B2', '#dddddd'


def plot(bench: Benchmark, rows: Sequence[Record], device: str, path: str | os.PathLike) -> None:
    """Draws a box per row: quartiles and median, and a line from the 1st to the 99th percentile.

    Args:
        bench: A comparison that has run.
        rows: Its records.
        device: What the title names.
        path: The PNG to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    labels = [f'{title(row)}\n{row["backend"]}, batch {row["batch"]}' for row in rows]
    longest = max(len(line) for label in labels for line in label.splitlines())
    size = 6 + 0.08 * longest, 1.1 + 0.32 * len(rows)
    figure = Figure(size, dpi=120, layout='constrained')
    axes, found = figure.subplots(), bench.measurement
    for index, row in enumerate(rows):
        if row['kind'] == FAILED:
            axes.text(0.02, index, row['error'], transform=axes.get_yaxis_transform(), va='center')
            continue
        samples_ms = found.samples_ms(index)
        low, q1, median, q3, high = np.percentile(samples_ms, [1, 25, 50, 75, 99])
        axes.hlines(index, low, high, color=INK)
        axes.barh(index, q3 - q1, left=q1, height=0.5, facecolor=PALE, edgecolor=INK)
        axes.vlines(median, index - 0.25, index + 0.25, color=INK, linewidth=2)
        axes.annotate(
            f'{row["latency_ms"]:.4g}',
            (high, index),
            xytext=(5, 0),
            textcoords='offset points',
            va='center',
        )
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    # From zero, so that lengths compare, and with room for the numbers.
    axes.set_xlim(0, 1.15 * max((row.get('p99_ms', 0.0) for row in rows), default=0.0) or 1.0)
    axes.set_xlabel(f'latency of a batch in {rows[0]["dtype"]} [ms], median beside it')
    axes.set_title(device, loc='left', fontsize=9)
    axes.grid(axis='x', color=PALE)
    axes.set_axisbelow(True)
    save_figure(figure, path)
