"""Writing a file so that a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.errors import PrunetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_atomic(path: str | os.PathLike, data: bytes | str) -> None:
    """Replaces ``path`` by ``data`` in one step, also through a crash or a full disk.

    Args:
        path: The file; its folder must exist. A symbolic link stays one, its target is replaced.
        data: The new content; a string is written as UTF-8.

    Raises:
        PrunetError: The file cannot be written; what was there before is intact.
    """
    target = Path(os.path.realpath(path))
    # In the same folder, since a rename is atomic only within one file system. The name is random
    # because several ranks, on several machines, may write to one shared folder.
    temporary = target.with_name(f'.{target.name}.{secrets.token_hex(4)}.tmp')
    try:
        try:
            with open(temporary, 'xb') as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise PrunetError(
            f'cannot write {path}: {error.strerror}; what was there before is unchanged'
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut, on file systems that can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Writes one of matplotlib's figures as PNG, in one step.

    Raises:
        PrunetError: It cannot be written; what was there before is intact.
    """
    image = io.BytesIO()
    figure.savefig(image, format='png')
    write_atomic(path, image.getvalue())
