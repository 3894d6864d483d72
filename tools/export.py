#!/usr/bin/env python
"""Export a config's classifier, detector or backbone to ONNX or TorchScript.

BatchNorms are folded, the batch size stays free, and the file is written only if it computes what
the network does in PyTorch, and finds what mmdet does.

    python tools/export.py configs/cls/prunet-p0_8xb256_in1k.py CHECKPOINT
    python tools/export.py configs/det/retinanet_prunet_digits.py CHECKPOINT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine import cli
    from prunet_mm.errors import ConfigError, DataError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    import numpy as np
    from mmengine.config import Config

    from prunet_mm.deploy.agreement import Agreement
    from prunet_mm.deploy.export import Deviation
    from prunet_mm.deploy.network import Network

CHECKED = 8  # images


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
        help='the whole classifier, up to its logits, or the whole detector (the default), or the '
        'backbone alone with all of its out_indices',
    )
    parser.add_argument(
        '--output',
        choices=['detections', 'raw'],
        help="what a detector's file returns: boxes, scores and labels after threshold, top-k and "
        'NMS (the default), or decoded boxes and scores of all anchors',
    )
    parser.add_argument(
        '--nms',
        choices=['onnx', 'tensorrt'],
        help="what selects a detector's boxes in the file: ONNX's own NonMaxSuppression (the "
        "default) or TensorRT's plugin EfficientNMS",
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='IMAGE',
        help='images, or folders of them, that a detector is checked with; by default '
        f"{CHECKED} of the config's test",
    )
    parser.add_argument(
        '--opset',
        type=int,
        metavar='N',
        help='of ONNX; by default 18, which the oldest runtimes read',
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
    if args.output == 'raw' and args.nms:
        parser.error('--nms is for --output detections: the raw output has all boxes')
    if args.format != 'onnx' and args.opset:
        parser.error('--opset is for --format onnx')
    return args


def main() -> None:
    """Build, export, check and write; tell what was done."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options)
    cli.require(cfg, 'model')

    from prunet_mm.deploy.formats import FORMATS, OPSET, require_opset
    from prunet_mm.deploy.network import build_network, default_part, is_detector
    from prunet_mm.engine.checkpoint import use_safe_loading

    form, part = FORMATS[args.format], args.part or default_part(cfg)
    opset = require_opset(args.opset or OPSET)
    form.require()
    path = args.out or default_path(cfg, part, args, form.suffix)
    cli.require_output(path, '--out', form.suffix)
    use_safe_loading()
    if part == 'model' and is_detector(cfg):
        export_detector(cfg, args, path, opset)
    else:
        require_no_detector_options(cfg, args)

        from prunet_mm.deploy.export import export

        network = build_network(cfg, part, args.checkpoint, args.input_size)
        describe(network)
        report(export(network, args.format, path, opset))
    print(f'wrote    {path}, {Path(path).stat().st_size / 1e6:.1f} MB')


def export_detector(cfg: Config, args: argparse.Namespace, path: str, opset: int) -> None:
    """Export a detector as a whole; tell what was done."""
    output = args.output or ('detections' if args.format == 'onnx' else 'raw')
    if output == 'detections' and args.format != 'onnx':
        raise ConfigError(
            f'--output detections: {args.format} has no operator that selects boxes as mmdet does: '
            'take --output raw or --format onnx'
        )

    from prunet_mm.deploy.agreement import export_detector
    from prunet_mm.deploy.detector import build_detector

    images = images_for_check(cfg, args.images)
    network = build_detector(cfg, output, args.checkpoint, args.input_size, args.nms or 'onnx')
    describe(network)
    report_agreement(export_detector(network, args.format, path, images, opset))


def images_for_check(cfg: Config, paths: list[str] | None) -> list[np.ndarray]:
    """The images that were named, or some of the config's test.

    Raises:
        DataError: There are none, or one cannot be read.
    """
    from prunet_mm.inference.sources import find_sources, read_image, test_images

    try:
        files = [s.path for s in find_sources(paths)] if paths else test_images(cfg, CHECKED)
    except DataError as error:
        if paths:
            raise
        raise DataError(
            f'a detector is checked with real images before it is written, so name some with '
            f'--images, since those of the config are not there: {error}'
        ) from error
    return [read_image(file) for file in files]


def require_no_detector_options(cfg: Config, args: argparse.Namespace) -> None:
    """Refuse what only whole detectors have."""
    for option in ('output', 'nms', 'images'):
        if getattr(args, option):
            raise ConfigError(
                f'--{option} is for whole detectors, but this exports the '
                f'{"backbone" if args.part == "backbone" else "classifier"} of {cfg.filename}'
            )


def default_path(cfg: Config, part: str, args: argparse.Namespace, suffix: str) -> str:
    """Where the file goes that no name was given for; each form has a name of its own."""
    names = [
        Path(cfg.filename).stem,
        *['backbone'] * (part == 'backbone'),
        *['raw'] * (args.output == 'raw'),
        *['tensorrt'] * (args.nms == 'tensorrt'),
    ]
    return str(Path(cfg.work_dir, '_'.join(names) + suffix))


def describe(network: Network) -> None:
    """Print what is exported."""
    params = sum(parameter.numel() for parameter in network.module.parameters())
    weights = network.metadata['weights']
    weights = 'random, since no CHECKPOINT was given' if weights == 'random' else weights
    height, width = network.size
    what = network.metadata['part']
    usage = network.usage
    prepared = network.metadata['preprocessing'] if usage is None else usage.preparation.describe()
    print(
        f'network  {network.name}, {what}, {params:,} parameters before norms are folded\n'
        f'weights  {weights}\n'
        f'input    input: (batch, {network.shape[0]}, {height}, {width}), float32\n'
        f'prepared {prepared}',
        flush=True,
    )


def report(deviations: list[Deviation]) -> None:
    """Print the outputs and how well they agree."""
    for name in dict.fromkeys(found.output for found in deviations):
        shape = next(found.shape for found in deviations if found.output == name)
        note = ', in front of the softmax' if name == 'logits' else ''
        print(f'output   {name}: (batch, {", ".join(map(str, shape))}){note}')
    for runtime in dict.fromkeys(found.runtime for found in deviations):
        own = [found for found in deviations if found.runtime == runtime]
        batches = sorted({found.batch for found in own})
        print(
            f'checked  in {runtime} against PyTorch with its norms as they were, random images, '
            f'batches of {" and ".join(map(str, batches))}:\n         {_worst(own)}'
        )


def report_agreement(agreements: list[Agreement]) -> None:
    """Print how well a detector's file agrees with mmdet."""
    for found in agreements:
        print(f"checked  in {found.runtime} against mmdet's predict on {found.images} images:")
        if found.deviations:
            print(f'         scores and boxes of all anchors: {_worst(found.deviations)}')
        if found.boxes:
            print(
                f'         the same {found.boxes} boxes, IoU {found.iou:.5f} or more, '
                f'scores within {found.score_error:.1e}'
            )
        else:
            print('         mmdet finds no box in them, so nothing is known of their selection')


def _worst(deviations: list[Deviation]) -> str:
    worst = max(deviations, key=lambda found: found.error)
    return f'largest error {worst.error:.1e} of the largest value ({worst.output})'


if __name__ == '__main__':
    cli.run(main)
