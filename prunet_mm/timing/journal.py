"""What a long measurement has so far, in a file that survives the process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from prunet_mm.errors import ConfigError, PrunetError


class Visit(NamedTuple):
    """A few passes through one target, and through the anchor in between.

    Attributes:
        session: How often the measurement had been taken up when this was timed.
        round: Which round it belongs to, from 0.
        index: Which visit of that round it is, from 0.
        seconds: How long it took, preparation included.
        labels: What was timed; in a file, indices.
        laps_ms: (passes, labels) times in ms.
        anchor_ms: (passes,) times of the anchor in ms; none where there is no anchor.
        waited: The part of the time that threads were ready to run and had no core.
    """

    session: int
    round: int
    index: int
    seconds: float
    labels: list
    laps_ms: list[list[float]]
    anchor_ms: list[float]
    waited: float = 0.0


class Journal:
    """The visits of a measurement, in a file of JSON lines that is only ever appended to.

    The first line says what is measured, each other line is a visit. A process that is killed
    leaves at worst half a line, which the next one drops.

    Args:
        path: The file; None for a journal that is gone with the process.
        head: What is measured, and how. Only a journal with an equal head is taken up.
        fresh: Whether to start anew, whatever is there.

    Attributes:
        visits: All visits, in the order in which they were timed.
        session: Number of this session, from 0.

    Raises:
        ConfigError: The file is the journal of something else, or damaged; or another process
            measures into it.
        PrunetError: It cannot be read or written.
    """

    def __init__(
        self, path: str | os.PathLike | None, head: Mapping[str, Any], fresh: bool = False
    ) -> None:
        self.path = path and Path(path)
        self.visits: list[Visit] = []
        self.file: BinaryIO | None = None
        if self.path is not None:
            with self._explained():
                self.file = open(self.path, 'ab+')  # noqa: SIM115
            self._lock()
            self._take_up(json.loads(json.dumps(head)), fresh)
        self.session = 1 + self.visits[-1].session if self.visits else 0

    def add(self, visit: Visit) -> None:
        """Keeps a visit.

        Raises:
            PrunetError: The file cannot be written, for instance since the disk is full.
        """
        data = _rounded(visit._asdict())
        self._write(data)
        self.visits.append(Visit(**data))

    def close(self) -> None:
        """Leaves the file to whoever takes it up."""
        if self.file is not None:
            with contextlib.suppress(OSError):  # of what a full disk did not take
                self.file.close()

    def _lock(self) -> None:
        with contextlib.suppress(ImportError):  # Windows
            import fcntl

            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f'another process is measuring into {self.path}: wait for it, or choose '
                    'another --out'
                ) from None

    def _take_up(self, head: dict[str, Any], fresh: bool) -> None:
        """Reads what is there, drops what a killed process left unfinished, or starts anew."""
        self.file.seek(0)
        lines = [] if fresh else self.file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b'\n'):
            lines.pop()
        if lines:
            self._check(self._parsed(lines, 0), head)
            self.visits = [self._visit(lines, number) for number in range(1, len(lines))]
        with self._explained():
            self.file.truncate(sum(map(len, lines)))
        if not lines:
            self._write(head)

    def _check(self, found: dict[str, Any], head: dict[str, Any]) -> None:
        for name in {**head, **found}:
            ours, theirs = head.get(name), found.get(name)
            if ours != theirs:
                change = (
                    f'{name} was {theirs} and is {ours} now'
                    if not isinstance(ours, (dict, list))
                    else f'{name} is another now'
                )
                raise ConfigError(
                    f'{self.path} holds what an interrupted run measured, but {change}: take up '
                    'that run with its own settings, or start anew with --fresh'
                )

    def _parsed(self, lines: list[bytes], number: int) -> dict[str, Any]:
        try:
            data = json.loads(lines[number])
            if isinstance(data, dict):
                return data
        except ValueError:
            pass
        raise ConfigError(
            f'{self.path}, line {number + 1}, is damaged: start anew with --fresh'
        ) from None

    def _visit(self, lines: list[bytes], number: int) -> Visit:
        data = self._parsed(lines, number)
        if data.keys() != set(Visit._fields):
            raise ConfigError(
                f'{self.path}, line {number + 1}, is no visit: start anew with --fresh'
            )
        return Visit(**data)

    def _write(self, data: Mapping[str, Any]) -> None:
        if self.file is not None:
            with self._explained():
                self.file.write(json.dumps(data).encode() + b'\n')
                self.file.flush()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = f'; {len(self.visits)} visits are kept in it' if self.visits else ''
            raise PrunetError(f'cannot write {self.path}: {error.strerror}{kept}') from error


def _rounded(value: Any) -> Any:
    """Times to the nanosecond: more digits would only fill the disk."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value
