"""What a comparison has found: a record per row, and how records are shown and saved."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from prunet_mm.comparing.targets import MODEL
from prunet_mm.engine.text import text_table

if TYPE_CHECKING:
    from prunet_mm.comparing.benchmark import Benchmark
    from prunet_mm.timing.samples import Measurement

Record = dict[str, Any]
FAILED = 'failed'
BUSY = 0.02  # share of its time that a target may wait for a core before that is marked


def records(bench: Benchmark, precision: float, about: Mapping[str, Any]) -> list[Record]:
    """One record per job, for JSON: latencies in milliseconds.

    A job that failed, or was not reached before an interruption, has ``kind`` 'failed' and the
    reason as ``error`` in place of a latency.

    Args:
        bench: A comparison that has run, to the end or not.
        precision: How well the medians should be known.
        about: What all records have in common, such as the device's name.
    """
    found, today = bench.measurement, datetime.date.today().isoformat()
    rows = [_record(bench, found, index, precision) for index in range(len(bench.jobs))]
    return [row | dict(about, date=today) for row in rows]


def _record(bench: Benchmark, found: Measurement, index: int, precision: float) -> Record:
    job = bench.jobs[index]
    error, samples_ms = job.error, found.samples_ms(index)
    if error is None and len(samples_ms) < 2:
        error = 'interrupted before it was measured'
    settings = asdict(job.settings)
    del settings['device']  # which is named among what all have in common
    head = dict(
        target=job.subject.name,
        part=job.subject.part,
        kind=FAILED if error else 'measured',
        **settings,
        input_size=list(job.subject.shape[1:]),
        params=job.subject.params,
        macs=job.subject.macs,
    )
    if job.subject.after:
        head |= dict(candidates=job.subject.after.candidates)
    if error:
        return head | dict(error=error)
    q1, median, q3, p90, p99 = np.percentile(samples_ms, [25, 50, 75, 90, 99]).tolist()
    uncertainty = found.uncertainty_of(index)
    return head | dict(
        latency_ms=median,
        interval_ms=_finite(found.interval_ms(index)),
        precise=uncertainty <= precision,
        uncertainty=_finite([uncertainty])[0],
        waited_for_a_core=found.waited(index),
        mean_ms=float(np.mean(samples_ms)),
        p90_ms=p90,
        p99_ms=p99,
        iqr_ms=q3 - q1,
        samples=len(samples_ms),
        rounds=len(found.medians_ms(index)),
        images_per_second=1e3 * job.settings.batch / median,
        **_ratio(bench, found, index),
    )


def _ratio(bench: Benchmark, found: Measurement, index: int) -> Record:
    """How a job compares to the first one of its batch, if that could be measured."""
    batches = [job.settings.batch for job in bench.jobs]
    base = batches.index(batches[index])
    if base == index or not found.samples_ms(base):
        return dict(ratio=1.0 if base == index else None, ratio_interval=None)
    ratio, *interval = found.ratio(index, base)
    return dict(ratio=ratio, ratio_interval=_finite(interval))


def _finite(values: Sequence[float]) -> list[float | None]:
    """Infinity is not JSON: too few rounds to know."""
    return [value if math.isfinite(value) else None for value in values]


def as_text(rows: Sequence[Record], precision: float, table_kind: str | None = None) -> str:
    """A line per record; what failed says why.

    Args:
        rows: What `records` returns.
        precision: How well the medians should be known.
        table_kind: 'measured' or 'estimated', if records have what a latency table predicts.
    """
    titles = [
        *('target', 'backend', 'batch', 'median [ms]', '±', 'mean', 'p90', 'p99', 'IQR'),
        *('samples', 'images/s', 'params [M]', 'MACs [M]', 'ratio', '(95 %)'),
    ]
    if table_kind:
        titles += [f'{table_kind} table [ms]', 'table : median']
    cells = []
    for row in rows:
        line = [title(row), row['backend'], str(row['batch']), *_cells(row)]
        if table_kind and row['kind'] != FAILED:
            line += _predicted(row)
        cells.append(line + [''] * (len(titles) - len(line)))
    lines = text_table([titles, *cells]).splitlines()
    for at, row in enumerate(rows, 1):
        if row['kind'] == FAILED:
            lines[at] += f'  {row["error"]}'
    if any(row['kind'] != FAILED and not row['precise'] for row in rows):
        lines.append(
            f'! not known to {precision:.2%}: a restless machine, or too few --max-seconds'
        )
    waited = [row['waited_for_a_core'] for row in rows if row['kind'] != FAILED]
    if max(waited, default=0.0) > BUSY:
        lines.append(
            f'# waited for a core up to {max(waited):.0%} of its time, since other processes had '
            'it: measure on an idle machine, and with no more --threads than cores'
        )
    return '\n'.join(lines)


def title(row: Record) -> str:
    """The target of a record, and what of it was timed where that is not the model."""
    part = '' if row['part'] == MODEL else f', {row["part"]}'
    count = f' of {row["candidates"]} candidates' if 'candidates' in row else ''
    return row['target'] + part + count


def _cells(row: Record) -> list[str]:
    if row['kind'] == FAILED:
        return []
    uncertainty = row['uncertainty']
    spread = '?' if uncertainty is None else f'{uncertainty:.1%}'
    low, high = row['ratio_interval'] or (None, None)
    return [
        f'{row["latency_ms"]:.3f}',
        spread + ' !' * (not row['precise']) + ' #' * (row['waited_for_a_core'] > BUSY),
        *(f'{row[name]:.3f}' for name in ('mean_ms', 'p90_ms', 'p99_ms', 'iqr_ms')),
        str(row['samples']),
        f'{row["images_per_second"]:.1f}',
        f'{row["params"] / 1e6:.3f}',
        f'{row["macs"] / 1e6:.1f}',
        '' if row['ratio'] is None else f'{row["ratio"]:.3f}',
        '' if low is None else f'{low:.3f}-{high:.3f}',
    ]


def _predicted(row: Record) -> list[str]:
    predicted_ms = row['predicted_ms']
    if predicted_ms is None:
        return ['-', '-']
    return [f'{predicted_ms:.3f}', f'{predicted_ms / row["latency_ms"]:.3f}']
