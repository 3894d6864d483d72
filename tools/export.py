#!/usr/bin/env python
"""Export a config's classifier or backbone to ONNX or TorchScript.

BatchNorms are folded, the batch size stays free, and the file is written only if it computes what
the network does in PyTorch.

    python tools/export.py configs/cls/prunet-p0_8xb256_in1k.py CHECKPOINT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine import cli
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from mmengine.config import Config

    from prunet_mm.deploy.export import Deviation
    from prunet_mm.deploy.network import Network


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config that trains a classifier or a detector')
    parser.add_argument(
        'checkpoint', nargs='?', help='the weights, as a training saved them; random without it'
    )
    parser.add_argument('--format', choices=['onnx', 'torchscript'], default='onnx')
    parser.add_argument(
        '--part',
        choices=['model', 'backbone'],
        help='the whole classifier, up to its logits, or the backbone with all of its '
        'out_indices; by default the first for a classifier and the second for a detector',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='by default named after the config, in its work dir'
    )
    parser.add_argument(
        '--input-size',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width of images in pixels, or one number for both; by default the '
        "network's resolution",
    )
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    if args.input_size and len(args.input_size) > 2:
        parser.error('--input-size takes one number or two, height and width')
    return args


def main() -> None:
    """Build, export, check and write; tell what was done."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options)
    cli.require(cfg, 'model')

    from prunet_mm.deploy.export import export
    from prunet_mm.deploy.formats import FORMATS
    from prunet_mm.deploy.network import build_network, default_part
    from prunet_mm.engine.checkpoint import use_safe_loading

    form, part = FORMATS[args.format], args.part or default_part(cfg)
    form.require()
    path = args.out or default_path(cfg, part, form.suffix)
    cli.require_output(path, '--out', form.suffix)
    use_safe_loading()
    network = build_network(cfg, part, args.checkpoint, args.input_size)
    describe(network)
    report(export(network, args.format, path), form.runs_in)
    print(f'wrote    {path}, {Path(path).stat().st_size / 1e6:.1f} MB')


def default_path(cfg: Config, part: str, suffix: str) -> str:
    """Where the file goes that no name was given for."""
    name = Path(cfg.filename).stem + ('_backbone' if part == 'backbone' else '')
    return str(Path(cfg.work_dir, name + suffix))


def describe(network: Network) -> None:
    """Print what is exported."""
    params = sum(parameter.numel() for parameter in network.module.parameters())
    weights = network.metadata['weights']
    weights = 'random, since no CHECKPOINT was given' if weights == 'random' else weights
    height, width = network.size
    what = network.metadata['part']
    print(
        f'network  {network.spec.name}, {what}, {params:,} parameters before norms are folded\n'
        f'weights  {weights}\n'
        f'input    input: (batch, {network.spec.in_channels}, {height}, {width}), float32, '
        f'preprocessed: {network.metadata["preprocessing"]}',
        flush=True,
    )


def report(deviations: list[Deviation], runs_in: str) -> None:
    """Print the outputs and how well they agree."""
    batches = sorted({found.batch for found in deviations})
    for name in dict.fromkeys(found.output for found in deviations):
        (shape,) = {found.shape for found in deviations if found.output == name}
        note = ', in front of the softmax' if name == 'logits' else ''
        print(f'output   {name}: (batch, {", ".join(map(str, shape))}){note}')
    worst = max(deviations, key=lambda found: found.error)
    print(
        f'checked  in {runs_in} against PyTorch with its norms as they were, random images, '
        f'batches of {" and ".join(map(str, batches))}:\n'
        f'         largest error {worst.error:.1e} of the largest value ({worst.output})'
    )


if __name__ == '__main__':
    cli.run(main)
