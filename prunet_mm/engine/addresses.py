"""Where checkpoints come from: local files, downloads, and the model lists of mmengine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from prunet_mm.errors import CheckpointError

_MODELS = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'openmmlab': get_external_models,
    'open-mmlab': get_external_models,
    'mmcls': get_mmcls_models,
}


def resolve_address(address: str) -> Path:
    """The local file behind an address, downloaded into torch's cache where it is not there yet.

    Args:
        address: A path, ``http(s)://...``, or ``torchvision://``, ``openmmlab://`` or ``mmcls://``
            and the name of a model in mmengine's list.

    Raises:
        CheckpointError: The address is of another kind, the list has no such model, or the
            download fails.
    """
    scheme, separator, name = str(address).partition('://')
    if not separator:
        return Path(address)
    if scheme in ('http', 'https'):
        return _download(address)
    if scheme not in _MODELS:
        raise CheckpointError(
            f'{address}: checkpoints come from local files, http(s)://, torchvision://, '
            'openmmlab:// and mmcls:// only: download it and give the path of the file'
        )
    files = _MODELS[scheme]()
    file = files.get(get_deprecated_model_names().get(name, name))
    if file is None:
        raise CheckpointError(f'{address}: mmengine lists no model of this name')
    if file.startswith(('http://', 'https://')):
        return _download(file)
    cache = os.getenv('XDG_CACHE_HOME', '~/.cache')
    return Path(os.getenv('MMENGINE_HOME', f'{cache}/mmengine'), file)


def _download(url: str) -> Path:
    """Downloads a file once: the first process does, and the others of its machine find it."""
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    try:
        if get_rank() == 0:
            _download_missing(url, path)
    finally:
        barrier()
    _download_missing(url, path)
    return path


def _download_missing(url: str, path: Path) -> None:
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{url}: cannot be downloaded ({error})') from error
