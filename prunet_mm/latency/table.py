"""What every block costs on one device: measured or estimated, with its provenance."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import LatencyTableError, SpecError
from prunet_mm.latency.validation import Milliseconds, Validation
from prunet_mm.spec import BlockKey, NetworkSpec
from prunet_mm.spec.kernels import INVERTED
from prunet_mm.spec.validation import (
    Flag,
    JsonObject,
    Many,
    Name,
    NonNegativeInt,
    Padding,
    PositiveInt,
    Spec,
    expecting,
    problem,
    shown,
)
from prunet_mm.timing.settings import DTYPES, Settings

SCHEMA_VERSION = 1
# A latency means nothing without these.
SHARED = ('kind', 'device', 'backend', 'dtype', 'batch', 'threads')
TABLES = Path(__file__).with_name('tables')
MEDIAN_ERROR = 0.93  # of n normal samples: standard error of the median * sqrt(n) / iqr
COMMAND = 'python tools/build_latency_table.py CONFIG --out {path}'

Spread = Annotated[
    float, Field(ge=0, allow_inf_nan=False), expecting('a number of milliseconds, 0 or more')
]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False), expecting('a positive number')]
Offset = Annotated[float, Field(allow_inf_nan=False), expecting('a number of milliseconds')]


class Entry(Spec):
    """One block's latency; the fields up to ``se_gate`` are those of a `BlockKey`.

    Attributes:
        latency_ms: Median over the samples.
        iqr_ms: Distance between the quartiles of the samples.
        samples: How many there are; 0 for an estimate.
    """

    op: Annotated[
        Literal['conv', 'ds', 'fused_irb', 'irb', 'shortcut', 'tail'],
        expecting('"conv", "ds", "fused_irb", "irb", "shortcut" or "tail"'),
    ]
    in_channels: PositiveInt
    out_channels: PositiveInt
    hidden: NonNegativeInt
    kernel: PositiveInt
    stride: PositiveInt
    act: Name
    se: NonNegativeInt
    height: PositiveInt
    width: PositiveInt
    padding: Padding | None = None
    residual: Flag | None = None
    features: NonNegativeInt = 0
    features_bias: Flag = False
    act_last: Flag = False
    se_act: Name | None = None
    se_gate: Name = 'sigmoid'
    latency_ms: Milliseconds
    iqr_ms: Spread
    samples: NonNegativeInt

    @property
    def key(self) -> BlockKey:
        return BlockKey(*(getattr(self, field) for field in BlockKey._fields))


class LatencyTable(Spec):
    """Latencies of blocks on one device, and where they are from.

    The entries are raw medians. What is asked of the table is a view of them: each is drawn towards
    a curve that never falls with the hidden width (isotonic regression), as far as noise explains
    where they part (`trust`). So a search may use a width that suits the hardware, but is not drawn
    to what is low by luck. It is linear between measured widths; nothing is extrapolated. A network
    is predicted to take ``network_overhead_ms`` and ``network_scale`` times the sum of its blocks.

    Attributes:
        kind: 'measured', or 'estimated' by a model of the device.
        device: What the hardware calls itself.
        batch: Images per pass; all latencies are of a whole batch.
        date: Day of the measurement, YYYY-MM-DD.
        protocol: How it was measured.
        network_overhead_ms: What a network takes, whatever its blocks; below zero where small
            networks take less than the sum, since they fit into the cache.
        network_scale: What a block takes inside of a network, relative to its entry.
        validation: How well the table predicts whole networks, where that was measured.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Annotated[Literal['measured', 'estimated'], expecting('"measured" or "estimated"')]
    device: Name
    backend: Name
    dtype: Annotated[Literal[DTYPES], expecting(f'one of {", ".join(DTYPES)}')]
    batch: PositiveInt
    threads: PositiveInt
    software: JsonObject
    date: Name
    protocol: JsonObject
    network_overhead_ms: Offset = 0.0
    network_scale: Scale = 1.0
    validation: Validation | None = None
    entries: Many[Entry]
    _source: str = PrivateAttr('this latency table')

    def __hash__(self) -> int:
        """Hashes what it is of, and its entries."""
        return hash(self.digest)

    @model_validator(mode='after')
    def _each_block_once(self) -> LatencyTable:
        seen = set()
        for index, entry in enumerate(self.entries):
            if entry.key in seen:
                raise problem(('entries', index), f'{readable(entry.key)} is there twice')
            seen.add(entry.key)
        # Below zero only where whole networks were measured, some of which fit into a cache.
        found = self.validation
        least_ms = 0.9 * min(found.measured_ms) if found else 0.0
        if self.network_overhead_ms < -least_ms:
            fastest = f'the fastest takes {least_ms / 0.9:.4g} ms'
            raise problem(
                ('network_overhead_ms',),
                f'found {self.network_overhead_ms:g}, expected {-least_ms or 0:.4g} or more: of '
                f'the networks of a validation {fastest if found else "none was timed"}',
            )
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = 'latency table') -> LatencyTable:
        """Builds a table from nested dicts and lists.

        Args:
            data: What `to_dict` returns.
            source: What errors name as the place where ``data`` is from.

        Raises:
            LatencyTableError: ``data`` is no table; names the field and what is expected.
        """
        if not isinstance(data, Mapping) or 'schema_version' not in data:
            raise LatencyTableError(f'{source} is no latency table: it has no schema_version')
        if data['schema_version'] != SCHEMA_VERSION:
            raise LatencyTableError(
                f'{source}: schema_version: found {shown(data["schema_version"])}, expected '
                f'{SCHEMA_VERSION}, the only one that this prunet_mm knows'
            )
        try:
            table = super().from_dict(data, source)
        except SpecError as error:
            raise LatencyTableError(str(error)) from None
        table._source = source
        return table

    @classmethod
    def load(cls, path: str | os.PathLike) -> LatencyTable:
        """Reads a table from a JSON file.

        Args:
            path: The file, or the name of a table that comes with the package, such as
                'v100_trt_fp16_b1'.

        Raises:
            LatencyTableError: The file is missing, cut off or no table.
        """
        command = COMMAND.format(path=shlex.quote(str(path)))
        try:
            data = json.loads((shipped(path) or Path(path)).read_text('utf-8'))
        except FileNotFoundError:
            raise LatencyTableError(
                f'there is no latency table {path}; measure one: {command}'
            ) from None
        except OSError as error:
            raise LatencyTableError(
                f'cannot read the latency table {path}: {error.strerror}'
            ) from error
        except (ValueError, RecursionError) as error:
            raise LatencyTableError(
                f'the latency table {path} is cut off or not JSON ({error}); measure it again: '
                f'{command}'
            ) from error
        return cls.from_dict(data, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers that `from_dict` reads."""
        return {'schema_version': self.schema_version, **super().to_dict()}

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file in one step, with a line per block and network.

        Raises:
            PrunetError: The file cannot be written; what was there before is intact.
        """
        head, long = self.to_dict(), {}
        for name, parent in (('networks', head.get('validation')), ('entries', head)):
            if parent and parent.get(name):
                long[f'"{name} of this table"'] = parent.pop(name)
                parent[name] = f'{name} of this table'
        text = json.dumps(head, indent=2, ensure_ascii=False)
        for mark, rows in long.items():
            lines = ',\n    '.join(json.dumps(row) for row in rows)
            text = text.replace(mark, f'[\n    {lines}\n  ]')
        write_atomic(path, text + '\n')

    @property
    def source(self) -> str:
        """The file that the table is from, as errors name it."""
        return self._source

    @cached_property
    def digest(self) -> str:
        """Short SHA-256 of all that a prediction depends on, which tells tables apart."""
        rows = [getattr(self, name) for name in (*SHARED, 'network_overhead_ms', 'network_scale')]
        rows += [round(self.trust, 9)] * (self.trust < 1)
        rows += sorted(([*_row(entry.key), entry.latency_ms] for entry in self.entries), key=str)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

    @cached_property
    def _measured(self) -> dict[BlockKey, tuple[np.ndarray, ...]]:
        """By `_curve_key`, widths ascending: these, entries, these made to rise, errors; in ms."""
        from scipy.optimize import isotonic_regression  # not above, since it takes a while

        groups: dict[BlockKey, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(_curve_key(entry.key), []).append(entry)
        found = {}
        for key, group in groups.items():
            group.sort(key=lambda entry: entry.hidden)
            entries_ms = np.array([entry.latency_ms for entry in group])
            rising_ms = isotonic_regression(entries_ms).x if len(group) > 1 else entries_ms
            errors_ms = [MEDIAN_ERROR * one.iqr_ms / max(one.samples, 1) ** 0.5 for one in group]
            widths = np.array([entry.hidden for entry in group])
            found[key] = widths, entries_ms, rising_ms, np.array(errors_ms)
        return found

    @cached_property
    def trust(self) -> float:
        """How far entries are believed where they part from a curve that rises, from 0 to 1.

        1, less the share of that variance that is the noise of those entries (shrinkage, after
        James and Stein). Noise is known from spread and number of samples; an estimate has none.
        """
        variance = noise = 0.0
        for _, entries_ms, rising_ms, errors_ms in self._measured.values():
            parted = np.abs(entries_ms - rising_ms) > 1e-9 * rising_ms
            variance += float(((entries_ms / rising_ms - 1)[parted] ** 2).sum())
            noise += float(((errors_ms / rising_ms)[parted] ** 2).sum())
        return max(0.0, 1 - noise / variance) if variance else 1.0

    @cached_property
    def curves(self) -> dict[BlockKey, tuple[np.ndarray, np.ndarray]]:
        """Hidden widths, ascending, and the latencies in ms that are asked for, by `_curve_key`."""
        return {
            key: (widths, rising_ms + self.trust * (entries_ms - rising_ms))
            for key, (widths, entries_ms, rising_ms, _) in self._measured.items()
        }

    def __contains__(self, key: BlockKey) -> bool:
        """Whether a block was measured, or lies between two measured hidden widths."""
        widths, _ = self.curves.get(_curve_key(key), ((), ()))
        return len(widths) > 0 and widths[0] <= key.hidden <= widths[-1]

    def is_interpolated(self, key: BlockKey) -> bool:
        """Whether `block_ms` of this block lies between two entries and is none of its own.

        Raises:
            LatencyTableError: The table does not have the block.
        """
        self.require([key])
        return key not in self._keys

    @cached_property
    def _keys(self) -> frozenset[BlockKey]:
        return frozenset(entry.key for entry in self.entries)

    def require(self, keys: Iterable[BlockKey]) -> None:
        """Raises unless the table has all these blocks.

        Raises:
            LatencyTableError: Names the first that is missing, how many are, and the command.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self]
        if not missing:
            return
        more = f' and {len(missing) - 1} more blocks' if len(missing) > 1 else ''
        path = self.source if self.source.endswith('.json') else 'PATH'
        raise LatencyTableError(
            f'{self.source} has no latency for {readable(missing[0])}{more}; '
            f'measure them: {COMMAND.format(path=shlex.quote(str(path)))}'
        )

    def block_ms(self, key: BlockKey) -> float:
        """Latency of one block inside of a network in ms.

        Raises:
            LatencyTableError: The table does not have it.
        """
        self.require([key])
        return self._view(key)

    def predict_ms(self, spec: NetworkSpec) -> float:
        """Latency of a network in ms: the sum over its blocks as `block_ms`, and the overhead.

        Raises:
            LatencyTableError: The table does not have all its blocks.
        """
        keys = spec.block_keys()
        self.require(keys)
        return sum(map(self._view, keys)) + self.network_overhead_ms

    def settings(self, device: str = 'cpu') -> Settings:
        """What a network runs by where it is measured like the table, on this device."""
        return Settings(device, self.backend, self.dtype, self.batch, self.threads)

    def _view(self, key: BlockKey) -> float:
        return self.network_scale * float(np.interp(key.hidden, *self.curves[_curve_key(key)]))

    def describe(self) -> str:
        """What the latencies are, in one line: every place that shows one can say it."""
        return f'{self.kind} on {self.device}: {self.settings().words}, {self.date}'


def shipped(name: str | os.PathLike) -> Path | None:
    """The file of a table that comes with the package; None where no table has this name.

    A measured one goes before one that is estimated.
    """
    if Path(name).name != str(name) or Path(name).suffix:
        return None  # a path
    files = (TABLES / f'{name}{suffix}.json' for suffix in ('', '_estimated'))
    return next((file for file in files if file.exists()), None)


def readable(key: BlockKey) -> str:
    """A block in words, as errors name it."""
    hidden = f' hidden {key.hidden}' if key.hidden else ''
    se = f' se {key.se}' if key.se else ''
    odd = ''.join(f' {name} {getattr(key, name)}' for name in _unusual(key))
    return (
        f'{key.op} {key.in_channels}->{key.out_channels}{hidden} k{key.kernel} s{key.stride} '
        f'{key.act}{se}{odd} on {key.height} x {key.width} px'
    )


def _unusual(key: BlockKey) -> list[str]:
    """The optional fields that say something of a block."""
    return [name for name, usual in BlockKey._field_defaults.items() if getattr(key, name) != usual]


def _row(key: BlockKey) -> list:
    """A key in a digest: fields that came later only where needed, or all digests would change."""
    first = BlockKey._fields.index('features') + 1
    later = (name for name in _unusual(key) if name in BlockKey._fields[first:])
    return [*key[:first], *(f'{name} {getattr(key, name)}' for name in later)]


def _curve_key(key: BlockKey) -> BlockKey:
    """What blocks share that differ in nothing but a searched hidden width."""
    return key._replace(hidden=0) if key.op in INVERTED else key
