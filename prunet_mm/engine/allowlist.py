"""The Python objects that a checkpoint may hold beside tensors and plain containers.

torch's ``weights_only`` unpickler calls whatever its allowlist names, with arguments from the file.
mmengine's checkpoints name numpy arrays, log histories and, for the latter, ``getattr``, none of
which is safe to call like that; timm's, NVIDIA's among them, name the `argparse.Namespace` of the
command line. So each name stands for a record here that only keeps what the file says;
:func:`restore` makes the real object, once the record is complete, from checked contents.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

# Numbers, truth values and fixed-length strings: no objects, no fields, no memory addresses.
_PLAIN_DTYPE = re.compile(r'[biufcSU]\d+')
_STATISTICS = ('min', 'max', 'current', 'mean')


class NotPlainDataError(Exception):
    """Carries the name of the object in the file that is not plain data."""


class _Record:
    """What a pickle says about one object: the arguments it is built with, and its state."""

    args: tuple = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Record):
    def restore(self) -> np.dtype:
        code = self.args[0] if self.args else None
        _, order, *structure = (self.state or (3, '|'))[:5]
        plain = isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code)
        if not plain or order not in ('<', '>', '|', '=') or any(structure):
            raise NotPlainDataError(f'numpy.dtype({code!r})')
        return np.dtype(order + code)


class _Array(_Record):
    def restore(self) -> np.ndarray:
        if self.state is None:
            raise NotPlainDataError('numpy.ndarray')
        _, shape, dtype, fortran, data = self.state
        dtype = _restored(dtype, _Dtype)
        if not isinstance(data, bytes):
            raise NotPlainDataError('numpy.ndarray')
        order = 'F' if fortran else 'C'
        # The copy owns its memory: an array on top of bytes could not be written to.
        return np.ndarray(shape, dtype, data, order=order).copy(order)


class _History(_Record):
    def restore(self) -> HistoryBuffer:
        values, counts = (
            _restored(self.state[name], _Array) for name in ('_log_history', '_count_history')
        )
        if any(column.ndim != 1 or column.dtype.kind not in 'biuf' for column in (values, counts)):
            raise ValueError('a log history holds something other than numbers')
        # The methods that the state lists too are shared by all buffers: mmengine sets its own.
        return HistoryBuffer(values, counts, int(self.state['max_length']))


class _Namespace(_Record):
    def restore(self) -> argparse.Namespace:
        return argparse.Namespace(**restore(self.state or {}))


def _restored(record: Any, kind: type[_Record]) -> Any:
    if type(record) is not kind:
        raise ValueError(f'found a {type(record).__name__} where numpy data belongs')
    return record.restore()


def _scalar(dtype: Any, data: bytes) -> np.generic:
    """Stands for numpy's ``scalar``, which is complete at once: its arguments are."""
    return np.frombuffer(data, _restored(dtype, _Dtype), count=1)[0]


def _statistic(owner: Any, name: Any) -> str:
    """Stands for ``getattr``, by which a `HistoryBuffer` refers to its own four methods."""
    if owner is not _History or name not in _STATISTICS:
        raise NotPlainDataError('builtins.getattr')
    return name


def _no_bytes() -> bytes:
    """Stands for ``bytes``, which old pickle protocols call, without arguments, for ``b''``."""
    return b''


ALLOWLIST = [
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_Namespace, 'argparse.Namespace'),
    (_statistic, 'builtins.getattr'),
    (_no_bytes, 'builtins.bytes'),
    (_Dtype, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    # numpy 2 writes the second form, and everybody reads both.
    (_Array, 'numpy.core.multiarray._reconstruct'),
    (_Array, 'numpy._core.multiarray._reconstruct'),
    (_scalar, 'numpy.core.multiarray.scalar'),
    (_scalar, 'numpy._core.multiarray.scalar'),
]


def restore(content: Any) -> Any:
    """Replaces every record in nested dicts, lists and tuples by the object it describes.

    Args:
        content: What the unpickler returned; dicts and lists are changed in place.

    Raises:
        NotPlainDataError: A record describes something that is more than data.
    """
    return _restore(content, {})


def _restore(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    # Remembered under its id, since a file may refer to one object from several places; together
    # with the object, since the id of one that is gone may come again.
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, _Record):
        done[id(value)] = value, value.restore()
        return done[id(value)][1]
    if isinstance(value, dict):
        done[id(value)] = value, value
        for key, item in value.items():
            value[key] = _restore(item, done)
    elif type(value) is list:
        done[id(value)] = value, value
        value[:] = [_restore(item, done) for item in value]
    elif type(value) is tuple:
        return tuple(_restore(item, done) for item in value)
    return value
