"""The frontier of one search: a row per latency that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

from prunet_mm.engine.files import write_atomic

FRONTIER = 'frontier.json'


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
    rows.sort(key=lambda row: row['target_ms'])
    write_atomic(Path(work_dir) / FRONTIER, json.dumps(rows, indent=1) + '\n')


def read_frontier(work_dir: str | Path) -> list[dict]:
    """Return the rows of a search's ``frontier.json``, by rising latency; none without one."""
    path = Path(work_dir) / FRONTIER
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else []
