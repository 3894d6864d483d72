"""Checkpoints: loaded without running anything from the file, saved in one step or not at all.

mmengine executes a checkpoint that does not load as plain data, and writes in place. After
:func:`use_safe_loading` everything that goes through mmengine (``load_from``, ``resume``,
``init_cfg``, ``runner.save_checkpoint``) goes through :func:`load_checkpoint_file` and an atomic
write instead.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances
from mmengine.runner import CheckpointLoader
from torch import Tensor

from prunet_mm.engine.addresses import resolve_address
from prunet_mm.engine.allowlist import ALLOWLIST, NotPlainDataError, restore
from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import CheckpointError

LAST_CHECKPOINT = 'last_checkpoint'  # mmengine's file that names the checkpoint to resume from

_NAME = re.compile(r'(?:iter|epoch)_(\d+)\.pth')
_TEMPORARY = re.compile(r'\..+\.[0-9a-f]{8}\.tmp')  # as `write_atomic` names its files
_STARTED = time.time()
_LOCK = threading.Lock()


def load_checkpoint_file(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Reads a checkpoint without executing anything that is in it.

    Args:
        path: A file written by ``torch.save``, or a ``.safetensors`` file.
        map_location: As in ``torch.load``; for safetensors the name of a device.

    Returns:
        The checkpoint: tensors, numbers, strings, plain containers, numpy arrays and scalars
        without objects, mmengine's `HistoryBuffer` and timm's `argparse.Namespace`.
        ``meta['config']`` is left out, because mmengine runs that text as Python when it resumes.

    Raises:
        CheckpointError: The file is missing, empty, damaged, not a checkpoint, or asks for an
            object outside a fixed list.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder: name the checkpoint file in it')
    if not path.is_file():
        raise CheckpointError(f'{path}: there is no such checkpoint')
    if path.stat().st_size == 0:
        raise CheckpointError(f'{path}: the checkpoint is empty, so it cannot be used')
    read = _read_safetensors if path.suffix == '.safetensors' else _read_pickle
    content = read(path, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{path}: holds one {type(content).__name__}, while a checkpoint is a dict'
        )
    if isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content


def _read_pickle(path: Path, map_location: Any) -> Any:
    try:
        with _allowlist(), warnings.catch_warnings():
            # A TorchScript archive is announced as being executed, and then refused.
            warnings.simplefilter('ignore')
            content = torch.load(path, map_location=map_location, weights_only=True)
        return restore(content)
    except NotPlainDataError as error:
        raise _refused(path, str(error)) from None
    except Exception as error:  # a damaged file can fail in any way
        text = str(error)
        name = re.search(r'GLOBAL (.+?) (?:was not an allowed|whose module)', text)
        if name:
            raise _refused(path, name[1]) from None
        # What torch says about unpickling in general recommends to execute the file.
        first_sentence = re.split(r'\. |\n', text)[0]
        reason = f' ({first_sentence})' if text and 'weights_only' not in text else ''
        raise CheckpointError(
            f'{path}: cannot be read as plain data{reason}: it is damaged, incomplete, or not a '
            'checkpoint of tensors, numbers and text'
        ) from error


def _refused(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f'{path}: refused, because it asks for the Python object {name!r}, which is not plain data '
        'and could run code: use a checkpoint of tensors, numbers, text and plain containers'
    )


@contextlib.contextmanager
def _allowlist() -> Iterator[None]:
    """Makes torch allow our list and nothing that others have added to its own, one per process."""
    with _LOCK:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(ALLOWLIST)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _read_safetensors(path: Path, map_location: Any) -> dict:
    _require_safetensors(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=str(map_location or 'cpu'))
    except SafetensorError as error:
        raise CheckpointError(f'{path}: is not a complete safetensors file ({error})') from None


def _require_safetensors(path: str | os.PathLike) -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f'{path}: such files take the package safetensors: run "pip install safetensors"'
        ) from None


def save_checkpoint_file(obj: dict, path: str | os.PathLike) -> None:
    """Saves a checkpoint so that ``path`` is, at any moment, the old file or the new one.

    Removes what runs that were killed while writing have left in the folder.

    Args:
        obj: What ``torch.save`` takes.
        path: The file; folders that are missing are made.

    Raises:
        PrunetError: The file cannot be written; the old one is intact.
    """
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    _write(path, buffer.getbuffer())


def save_safetensors_file(
    tensors: dict[str, Tensor], path: str | os.PathLike, metadata: dict[str, str]
) -> None:
    """Saves named tensors, without anything else, as :func:`save_checkpoint_file` does.

    Args:
        tensors: In any memory layout; the file holds them contiguous.
        path: The file; folders that are missing are made.
        metadata: What the file says about itself.

    Raises:
        PrunetError: The file cannot be written, or the package safetensors is missing.
    """
    _require_safetensors(path)
    from safetensors.torch import save

    # Copies, since the format refuses tensors that share memory.
    own = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    _write(path, save(own, {'format': 'pt', **metadata}))


def _write(path: str | os.PathLike, data: bytes | memoryview) -> None:
    folder = Path(os.path.realpath(path)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f'cannot make the folder of {path}: {error.strerror}') from error
    for file in folder.iterdir():
        # One run writes to a folder, so what is older than this process belongs to a dead one.
        with contextlib.suppress(OSError):
            if _TEMPORARY.fullmatch(file.name) and file.stat().st_mtime < _STARTED:
                file.unlink()
    write_atomic(path, data)


def mark_latest(path: str | os.PathLike, work_dir: str | os.PathLike) -> None:
    """Makes ``path`` the checkpoint from which mmengine resumes by default."""
    write_atomic(Path(work_dir, LAST_CHECKPOINT), str(path))


def resume_point(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint from which a run in a work dir goes on, or None.

    That is the one marked as the latest, which need not have the highest number, after a run was
    resumed from an older one. A folder that was moved or copied has it still, while the mark names
    the old place. Where it cannot be read, the one before it stands in, with a warning.

    Raises:
        CheckpointError: None that is there can be read.
    """
    unreadable = None
    for path in _candidates(work_dir):
        try:
            load_checkpoint_file(path)
        except CheckpointError as error:
            unreadable = unreadable or error
            continue
        if unreadable:
            warnings.warn(f'{unreadable}; going on from the one before, {path.name}', stacklevel=2)
        return path
    if unreadable:
        raise unreadable
    return None


def _candidates(work_dir: str | os.PathLike) -> list[Path]:
    """The checkpoint that is marked as the latest and those before it, or all, newest first."""
    paths = [path for path in Path(work_dir).glob('*.pth') if _NAME.fullmatch(path.name)]
    paths.sort(key=_number, reverse=True)
    mark = Path(work_dir, LAST_CHECKPOINT)
    if not mark.exists():
        return paths
    marked = Path(mark.read_text().strip())
    for path in (Path(work_dir, marked.name), marked):
        if path.is_file():
            numbered = _NAME.fullmatch(path.name)
            return [path, *(one for one in paths if numbered and _number(one) < _number(path))]
    return paths


def _number(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])


class AtomicLocalBackend(LocalBackend):
    """mmengine's access to local files, with writes that happen in one step."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        if os.path.exists(filepath) and not os.path.isfile(filepath):
            super().put(obj, filepath)  # a device or a pipe cannot be replaced by a rename
        else:
            _write(filepath, obj)


def use_safe_loading() -> None:
    """Makes all of mmengine load through :func:`load_checkpoint_file` and write in one step.

    It replaces every loader of `CheckpointLoader` and the file backend for local paths. May be
    called any number of times.
    """
    for scheme in list(CheckpointLoader._schemes):
        CheckpointLoader.register_scheme(scheme, load_from_plain_data, force=True)
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    backend_instances.clear()  # mmengine goes on using a backend that it has built before


# mmengine logs what comes after "load_from_" in the name of a loader.
def load_from_plain_data(filename: str, map_location: Any = None) -> dict:
    """Loads a local file or an address that :func:`resolve_address` knows."""
    path = resolve_address(filename)
    try:
        checkpoint = load_checkpoint_file(path, map_location)
    except CheckpointError as error:
        if '://' not in filename:
            raise
        raise CheckpointError(
            f'{error}; it comes from {filename}: delete it to download it again'
        ) from error
    if filename.startswith('mmcls://'):  # a classifier that is to start a backbone
        weights = weights_of(checkpoint)
        prefix = 'backbone.'
        weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        return dict(state_dict=weights)
    return checkpoint


def weights_of(checkpoint: Mapping) -> Mapping:
    """The tensors of a checkpoint by name: its ``state_dict``, or all of it where it has none."""
    weights = checkpoint.get('state_dict')
    return weights if isinstance(weights, Mapping) else checkpoint
