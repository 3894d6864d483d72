"""The frontier of one search: a row per latency that was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import SearchError
from prunet_mm.search.figures import INK, OPS, PINK, picture

FRONTIER = 'frontier.json'
KEYS = 'target_ms', 'predicted_ms', 'loss', 'subnet'


def add_to_frontier(work_dir: Path, target_ms: float, result) -> None:
    """Add the network of a target to ``frontier.json``, in place of an earlier row for it.

    Args:
        work_dir: Of the search.
        target_ms: Latency asked for, in ms.
        result: The :class:`prunet_mm.search.finish.Result` for it.
    """
    rows = [row for row in read_frontier(work_dir) if row['target_ms'] != target_ms]
    rows.append(
        dict(
            target_ms=target_ms,
            predicted_ms=result.rounding.predicted_ms,
            loss=result.loss,
            subnet=f'subnet_{target_ms:g}ms.json',
        )
    )
    write_frontier(work_dir, rows)


def write_frontier(work_dir: str | Path, rows: Sequence[dict]) -> None:
    """Write the rows of a search's ``frontier.json``, by rising latency."""
    rows = sorted(rows, key=lambda row: row['target_ms'])
    write_atomic(Path(work_dir) / FRONTIER, json.dumps(rows, indent=1) + '\n')


def read_frontier(work_dir: str | Path) -> list[dict]:
    """Return the rows of a search's ``frontier.json``, by rising latency; none without one.

    Raises:
        SearchError: The file is damaged.
    """
    path = Path(work_dir) / FRONTIER
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise SearchError(f'{path}: damaged ({error}).') from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SearchError(f'{path}: damaged (expected a list of rows).')
    for row in rows:
        for key in KEYS:
            if key not in row:
                raise SearchError(f'{path}: damaged (a row without {key}).')
    return rows


def plot_frontier(rows: Sequence[dict], path: str | Path, table_kind: str) -> Path:
    """Draw the loss of each target's network against its latency.

    Args:
        rows: Of a ``frontier.json``, at least one.
        path: Where the PNG goes.
        table_kind: Of the latency table, 'measured' or 'estimated'.

    Raises:
        ImportError: matplotlib is not installed.
    """
    lead = (
        "Each point a network, with the SuperNet's weights, on images that these were not trained "
        'on. Bar: distance between the quartiles.'
    )
    with picture(path, (8, 4.6), 'The frontier of one search', lead) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.97, top=0.84, bottom=0.12)
        losses = [row['loss'] for row in rows]
        predicted = [row['predicted_ms'] for row in rows]
        axes.plot(
            predicted, losses, 'D-', color=OPS['irb'], label=f'predicted ({table_kind} table)'
        )
        timed = [row for row in rows if 'measured_ms' in row]
        if timed:
            axes.errorbar(
                [row['measured_ms'] for row in timed], [row['loss'] for row in timed],
                xerr=[row['measured_iqr_ms'] / 2 for row in timed],
                fmt='s', color=PINK, ecolor=INK, elinewidth=1, label='measured',
            )  # fmt: skip
        for row in rows:
            axes.annotate(
                f'{row["target_ms"]:g} ms', (row['predicted_ms'], row['loss']), xytext=(6, 6),
                textcoords='offset points', fontsize=8.5,
            )  # fmt: skip
        axes.set_xlabel('latency in ms')
        axes.set_ylabel('task loss')
        axes.margins(0.12)
        axes.legend()
    return Path(path)
