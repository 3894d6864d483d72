"""Weights as other code has saved them, and as our classifiers take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from prunet_mm.engine.checkpoint import (
    load_checkpoint_file,
    save_checkpoint_file,
    save_safetensors_file,
)
from prunet_mm.errors import CheckpointError

ENTRIES = ('state_dict_ema', 'state_dict')  # the first that a checkpoint has is the one to use


class Weights(NamedTuple):
    """What is taken from a checkpoint.

    Attributes:
        tensors: By name, without the ``module.`` that data parallelism puts in front.
        entry: Where in the file they were, for the screen.
        meta: What the checkpoint says of itself.
    """

    tensors: dict[str, Tensor]
    entry: str
    meta: Mapping


def read_weights(path: str, entry: str | None = None) -> Weights:
    """The tensors of a checkpoint: of ``entry``, by default of the first of `ENTRIES` it has.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, or no such weights.
    """
    content = load_checkpoint_file(path)
    there = [name for name in ENTRIES if isinstance(content.get(name), Mapping)]
    if entry and entry not in there:
        raise CheckpointError(f'{path}: has no {entry}, but {" and ".join(there) or "no entries"}')
    entry = entry or next(iter(there), None)
    found = content[entry] if entry else content
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f'{path}: holds no weights: tensors by name are expected, on their own or as one of '
            + ', '.join(ENTRIES)
        )
    prefix = 'module.' if all(key.startswith('module.') for key in found) else ''
    meta = content.get('meta')
    return Weights(
        {key.removeprefix(prefix): value.detach() for key, value in found.items()},
        entry or 'its tensors',
        meta if isinstance(meta, dict) else {},
    )


def write_weights(tensors: Mapping[str, Tensor], meta: dict, path: str) -> None:
    """Writes a checkpoint of ours; if its name ends in .safetensors, in that format."""
    if path.endswith('.safetensors'):
        save_safetensors_file(tensors, path, dict(network=meta['network']))
    else:
        save_checkpoint_file(dict(state_dict=tensors, meta=meta), path)
