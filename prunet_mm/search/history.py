"""The history of a search: a file with one JSON row per architecture step."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import SearchError

FILE_NAME = 'history.jsonl'


class History:
    """Appends rows to a ``history.jsonl``; see :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Unbuffered: a row that the disk did not take is not tried again when the file is closed.
        self._file = path.open('ab', buffering=0)

    @classmethod
    def open(cls, work_dir: str | Path, steps: int, rows: int) -> History:
        """Open the history of a search that has done some steps, cutting the rows beyond them.

        Args:
            work_dir: Where the file is, or will be.
            steps: Steps done.
            rows: Of these, steps on the architecture, each with a row.

        Raises:
            SearchError: Rows are damaged or missing.
        """
        path = Path(work_dir) / FILE_NAME
        kept = []
        if steps and path.exists():
            for line in path.read_text(encoding='utf-8').splitlines():
                # A row that was being written when the search was killed is beyond the steps.
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break
                if row['step'] > steps:
                    break
                kept.append(line)
        if len(kept) != rows:
            raise SearchError(
                f'{path} holds {len(kept)} rows up to step {steps}, from where the search is to go '
                f'on, instead of {rows}: resume from an older checkpoint, or put the {FILE_NAME} '
                'that belongs to this one there.'
            )
        write_atomic(path, ''.join(line + '\n' for line in kept))
        return cls(path)

    def append(self, row: dict) -> None:
        """Write one row.

        Raises:
            SearchError: It cannot be written, for instance since the disk is full.
        """
        data = json.dumps(row).encode() + b'\n'
        with self._explained():
            while data:  # a disk that is nearly full takes a part of it
                data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Wait until all rows are on disk; raises as `append`."""
        with self._explained():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SearchError(
                f'cannot write {self.path}: {error.strerror}; free some space and --resume: '
                'checkpoints and the rows up to them are intact'
            ) from error


def read_history(path: str | Path, running: bool = False) -> list[dict]:
    """Read the rows of a ``history.jsonl``.

    Args:
        path: The file.
        running: Leave out a last row without an end, which a search may be writing right now.

    Raises:
        SearchError: The file is missing or a row is damaged.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
        lines = (text[: text.rfind('\n') + 1] if running else text).splitlines()
        return [json.loads(line) for line in lines]
    except FileNotFoundError:
        raise SearchError(f'{path}: there is no such history.') from None
    except json.JSONDecodeError as error:
        raise SearchError(f'{path}: damaged ({error}).') from None
