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
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine.cli import run
    from prunet_mm.errors import CheckpointError, ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from torch import Tensor

    from prunet_mm.models.gpunet_keys import Match


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
        choices=['state_dict_ema', 'state_dict'],
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

    from prunet_mm.models.foreign import read_weights, write_weights
    from prunet_mm.models.gpunet_keys import from_nvidia, from_ours, nvidia_names_are_known

    weights = read_weights(args.src, args.entry)
    check_direction(args.src, weights.tensors, args.reverse)
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    match = (from_ours if args.reverse else from_nvidia)(shapes, args.src)
    name = match.spec.name
    print(f'{args.src}: {name}, {match.spec.params():,} parameters, from {weights.entry}')

    if not args.reverse:
        names = [slot.ours for slot in match.slots]
        meta = dict(network=name, entry=weights.entry, nvidia_keys=match.keys)
    else:
        recorded = weights.meta.get('nvidia_keys')  # by this tool, from NVIDIA's file
        names, meta = nvidia_names(match, recorded), dict(network=name)
        if names != recorded and not nvidia_names_are_known(match.spec):
            print(f'the names in the head and the tail of {name} are assumed, not known')
    tensors = {new: weights.tensors[old] for new, old in zip(names, match.keys, strict=True)}
    write_weights(tensors, meta, args.dst)
    print(f'wrote {args.dst}')


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


if __name__ == '__main__':
    run(main)
