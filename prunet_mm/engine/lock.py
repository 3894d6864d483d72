"""One run per work dir: of two that write to the same files, one would lose its results."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from prunet_mm.errors import ConfigError

FILE_NAME = '.lock'
_TAKEN = errno.EACCES, errno.EAGAIN


@contextlib.contextmanager
def only_run(work_dir: str | os.PathLike) -> Iterator[None]:
    """Holds a work dir for this process until it ends, however it ends.

    Of the processes of one run, call it in the first.

    Args:
        work_dir: The folder; made if it is missing.

    Raises:
        ConfigError: Another run holds the folder, or it cannot be made or written to.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        file = open(Path(work_dir, FILE_NAME), 'a')  # noqa: SIM115
    except OSError as error:
        raise ConfigError(
            f'cannot write to the work dir {work_dir}: {error.strerror}; choose another --work-dir'
        ) from error
    with file:
        _lock(file, work_dir)
        yield


def _lock(file: IO, work_dir: str | os.PathLike) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        # Not flock, which loader workers would inherit, and hold for seconds after a kill.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:  # else a file system that has no locks
            raise ConfigError(
                f'another process is running in {work_dir}: wait for its end, or choose another '
                '--work-dir'
            ) from None
