#!/usr/bin/env python
"""Write a classifier of timm as one of ours: its weights, and beside them the network as JSON.

The weights are those that timm downloads, or a checkpoint's: timm's own, or that of other code for
the same network, whose tensors come in the same order.

    python tools/model_converters/timm_to_prunet.py tf_efficientnet_lite0 lite0.pth --weights FILE
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

try:
    from prunet_mm.engine.cli import run
    from prunet_mm.errors import CheckpointError, ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

IMAGENET_CLASSES = 1000
TOLERANCE = 1e-4  # of the largest logit


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', metavar='NAME', help="timm's name of the network")
    parser.add_argument(
        'dst',
        metavar='DST',
        help='the file to write, in one step; if its name ends in .safetensors, in that format. '
        'The network goes to the same name with .json',
    )
    parser.add_argument(
        '--weights',
        metavar='CHECKPOINT',
        help='the weights to take, in place of those that timm downloads; nothing in it is run',
    )
    return parser.parse_args()


def main() -> None:
    """Build, recognise, rename, compare, write."""
    args = parse_args()
    spec_path = Path(args.dst).with_suffix('.json')
    if Path(args.dst).suffix not in ('.pth', '.safetensors'):
        raise ConfigError(f'{args.dst}: name a file that ends in .pth or .safetensors')
    if args.weights and os.path.realpath(args.weights) == os.path.realpath(args.dst):
        raise ConfigError(f'{args.dst} is CHECKPOINT and DST at once: name another file to write')

    import torch

    from prunet_mm.models.foreign import read_weights, write_weights
    from prunet_mm.models.timm_weights import (
        build_classifier,
        difference,
        in_our_names,
        in_timms_names,
    )
    from prunet_mm.spec import NetworkSpec, timm

    if args.weights:
        weights = read_weights(args.weights)
        model = timm.build(args.name)
        spec = NetworkSpec.from_timm(model)
        *_, bias = weights.tensors.values()
        if bias.ndim == 1 and len(bias) != spec.tail.num_classes:  # of other classes
            model.reset_classifier(len(bias))
            spec = NetworkSpec.from_timm(model)
        tensors = in_timms_names(model, weights.tensors, args.weights)
        model.load_state_dict(tensors, strict=False, assign=True)
        print(f'{args.weights}: {spec.name}, {spec.params():,} parameters, from {weights.entry}')
    else:
        model = timm.build(args.name, pretrained=True)
        spec = NetworkSpec.from_timm(model)
        tensors = model.state_dict()
    tensors = in_our_names(spec, tensors)
    images = torch.randn(1, spec.in_channels, spec.resolution, spec.resolution)
    error = difference(model, build_classifier(spec, tensors), images)
    if not error < TOLERANCE:
        raise CheckpointError(
            f'{spec.name}: the outputs are not those of timm, but differ by {error:.1e} of the '
            'largest: please report this network'
        )
    meta = dict(network=spec.name, source=args.weights or spec.provenance['model'])
    if spec.tail.num_classes == IMAGENET_CLASSES:
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

        meta['dataset_meta'] = dict(classes=IMAGENET_CATEGORIES)
    spec.save(spec_path)
    write_weights(tensors, meta, args.dst)
    print(f"outputs equal timm's within {error:.1e} of the largest, on random numbers")
    print(f'wrote {args.dst} and {spec_path}')


if __name__ == '__main__':
    run(main)
