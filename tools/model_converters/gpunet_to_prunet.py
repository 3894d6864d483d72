#!/usr/bin/env python
"""Turn a checkpoint of NVIDIA's GPUNet code into one for our classifiers, or back.

Which network it is of is found out from the names and shapes of the tensors.

    python tools/model_converters/gpunet_to_prunet.py gpunet_p0.pth.tar prunet_p0.pth
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

try:
    from prunet_mm.engine.cli import run
    from prunet_mm.errors import CheckpointError, ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from torch import Tensor

    from prunet_mm.models.gpunet_keys import Match

ENTRIES = ('state_dict_ema', 'state_dict')  # the first that a checkpoint has is the one to use


class Weights(NamedTuple):
    """What is taken from a checkpoint.

    Attributes:
        tensors: By name, without the ``module.`` that data parallelism puts in front.
        entry: Where in the file they were, for the screen.
        nvidia_keys: What NVIDIA's file called them, if it was this tool that wrote the checkpoint.
    """

    tensors: dict[str, Tensor]
    entry: str
    nvidia_keys: list[str] | None


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', metavar='SRC', help='the checkpoint to read; nothing in it is run')
    parser.add_argument(
        'dst',
        metavar='DST',
        help='the file to write, in one step; if its name ends in .safetensors, in that format',
    )
    parser.add_argument(
        '--entry',
        choices=ENTRIES,
        help='the weights to take where a checkpoint has both; by default the moving averages, '
        'state_dict_ema',
    )
    parser.add_argument('--reverse', action='store_true', help="from our layout to NVIDIA's")
    return parser.parse_args()


def main() -> None:
    """Read, recognise, rename, write."""
    args = parse_args()
    if os.path.realpath(args.src) == os.path.realpath(args.dst):
        raise ConfigError(f'{args.dst} is SRC and DST at once: name another file to write')

    from prunet_mm.models.gpunet_keys import from_nvidia, from_ours, nvidia_names_are_known

    weights = read(args.src, args.entry)
    check_direction(args.src, weights.tensors, args.reverse)
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    match = (from_ours if args.reverse else from_nvidia)(shapes, args.src)
    name = match.spec.name
    print(f'{args.src}: {name}, {match.spec.params():,} parameters, from {weights.entry}')

    if not args.reverse:
        names = [slot.ours for slot in match.slots]
        meta = dict(network=name, entry=weights.entry, nvidia_keys=match.keys)
    else:
        names, meta = nvidia_names(match, weights.nvidia_keys), dict(network=name)
        if names != weights.nvidia_keys and not nvidia_names_are_known(match.spec):
            print(f'the names in the head and the tail of {name} are assumed, not known')
    tensors = {new: weights.tensors[old] for new, old in zip(names, match.keys, strict=True)}
    write(tensors, meta, args.dst)
    print(f'wrote {args.dst}')


def read(path: str, entry: str | None) -> Weights:
    """The tensors of a checkpoint: of ``entry``, by default of the first of `ENTRIES` it has.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, or no such weights.
    """
    from torch import Tensor

    from prunet_mm.engine.checkpoint import load_checkpoint_file

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
        meta.get('nvidia_keys') if isinstance(meta, dict) else None,
    )


def check_direction(path: str, tensors: Mapping[str, Tensor], reverse: bool) -> None:
    """Refuses what is in the layout that it is to be brought into.

    Raises:
        CheckpointError: Says how to convert it.
    """
    ours, nvidias = (
        any(key.startswith(prefix) for key in tensors) for prefix in ('backbone.', 'network.')
    )
    if ours and not reverse:
        raise CheckpointError(f"{path}: is in our layout: --reverse converts it into NVIDIA's")
    if nvidias and reverse:
        raise CheckpointError(f"{path}: is in NVIDIA's layout: without --reverse it is converted")


def nvidia_names(match: Match, recorded: list[str] | None) -> list[str]:
    """What NVIDIA calls the tensors: as in the file they came from, where that was recorded."""
    names = [slot.nvidia for slot in match.slots]
    texts = isinstance(recorded, list) and all(isinstance(name, str) for name in recorded)
    return recorded if texts and len(recorded) == len(set(recorded)) == len(names) else names


def write(tensors: dict[str, Tensor], meta: dict, path: str) -> None:
    """Writes a checkpoint in the format that the name asks for; see `save_checkpoint_file`."""
    from prunet_mm.engine.checkpoint import save_checkpoint_file, save_safetensors_file

    if path.endswith('.safetensors'):
        save_safetensors_file(tensors, path, dict(network=meta['network']))
    else:
        save_checkpoint_file(dict(state_dict=tensors, meta=meta), path)


if __name__ == '__main__':
    run(main)
