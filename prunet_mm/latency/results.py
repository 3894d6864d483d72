"""What a comparison has found: a record per row, and how records are shown and saved."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prunet_mm.latency.cli import text_table
from prunet_mm.latency.targets import MODEL

if TYPE_CHECKING:
    from prunet_mm.latency.benchmark import Benchmark, Job

Record = dict[str, Any]
FAILED = 'failed'


def records(bench: Benchmark, precision: float, about: Mapping[str, Any]) -> list[Record]:
    """One record per job, for JSON: latencies in milliseconds.

    A job that failed, or was not reached before an interruption, has ``kind`` 'failed' and the
    reason as ``error`` in place of a latency.

    Args:
        bench: A comparison that has run, to the end or not.
        precision: How well the medians should be known.
        about: What all records have in common, such as the device's name.
    """
    rows = [_record(bench, index, job, precision) for index, job in enumerate(bench.jobs)]
    return [row | dict(about, date=datetime.date.today().isoformat()) for row in rows]


def _record(bench: Benchmark, index: int, job: Job, precision: float) -> Record:
    error, samples_ms = job.error, bench.measurement.samples_ms.get(index, ())
    if error is None and len(samples_ms) < 2:
        error = 'interrupted before it was measured'
    head = dict(
        target=job.subject.name,
        part=job.subject.part,
        kind=FAILED if error else 'measured',
        backend=job.backend,
        dtype=bench.dtype,
        batch=job.batch,
        threads=bench.threads,
        input_size=list(job.subject.shape[1:]),
        params=job.subject.params,
        macs=job.subject.macs,
    )
    if job.subject.after:
        head |= dict(candidates=job.subject.after.candidates)
    if error:
        return head | dict(error=error)
    q1, median, q3, p90, p99 = np.percentile(samples_ms, [25, 50, 75, 90, 99]).tolist()
    interval_ms = bench.measurement.interval_ms(index)
    uncertainty = bench.measurement.uncertainty_of(index)
    return head | dict(
        latency_ms=median,
        interval_ms=_finite(interval_ms),
        precise=uncertainty <= precision,
        uncertainty=_finite([uncertainty])[0],
        mean_ms=float(np.mean(samples_ms)),
        p90_ms=p90,
        p99_ms=p99,
        iqr_ms=q3 - q1,
        samples=len(samples_ms),
        rounds=len(set(bench.measurement.round_of[index])),
        images_per_second=1e3 * job.batch / median,
        **_ratio(bench, index, job),
    )


def _ratio(bench: Benchmark, index: int, job: Job) -> Record:
    """How a job compares to the first one of its batch, if that could be measured."""
    base = next(i for i, other in enumerate(bench.jobs) if other.batch == job.batch)
    if base == index or len(bench.measurement.samples_ms.get(base, ())) < 2:
        return dict(ratio=1.0 if base == index else None, ratio_interval=None)
    ratio, *interval = bench.measurement.ratio(index, base)
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
        spread if row['precise'] else f'{spread} !',
        *(f'{row[name]:.3f}' for name in ('mean_ms', 'p90_ms', 'p99_ms', 'iqr_ms')),
        str(row['samples']),
        f'{row["images_per_second"]:.1f}',
        f'{row["params"] / 1e6:.3f}',
        '' if row['macs'] is None else f'{row["macs"] / 1e6:.1f}',
        '' if row['ratio'] is None else f'{row["ratio"]:.3f}',
        '' if low is None else f'{low:.3f}-{high:.3f}',
    ]


def _predicted(row: Record) -> list[str]:
    predicted_ms = row['predicted_ms']
    if predicted_ms is None:
        return ['-', '-']
    return [f'{predicted_ms:.3f}', f'{predicted_ms / row["latency_ms"]:.3f}']


def as_json(rows: Sequence[Record]) -> str:
    """The records as a list."""
    return json.dumps(rows, indent=2, allow_nan=False) + '\n'


def as_csv(rows: Sequence[Record]) -> str:
    """The same records as a table with a line of titles; lists are written as ``LOW HIGH``."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval='', lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _flat(value) for name, value in row.items()})
    return file.getvalue()


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return '; '.join(f'{name} {item}' for name, item in value.items())
    if isinstance(value, list):
        return ' '.join('' if item is None else str(item) for item in value)
    return '' if value is None else value
