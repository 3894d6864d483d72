#!/usr/bin/env python
"""Check the images and annotations that a config trains, validates and tests on.

Looks into annotations in COCO's format and into folders per class. Prints what each holds and, a
sentence each, what is wrong with it. Trainings, tests and searches do the same, but open no more
than a thousand images, and stop at the first error.

    python tools/check_dataset.py configs/det/retinanet_prunet_digits.py
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine import cli
    from prunet_mm.errors import ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from mmengine.config import Config

    from prunet_mm.datasets.report import Report

SPLITS = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config file')
    cli.add_cfg_options(parser)
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument(
        '--no-images', action='store_true', help='do not open the images, which takes longest'
    )
    depth.add_argument(
        '--decode',
        action='store_true',
        help='decode every image; by default only headers are read, and 200 images decoded',
    )
    return parser.parse_args()


def main() -> None:
    """Check the data of every split."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options, register=False)

    from prunet_mm.datasets.image_check import EVERYTHING, HEADERS, NOTHING
    from prunet_mm.datasets.layout import check_data

    depth = NOTHING if args.no_images else EVERYTHING if args.decode else HEADERS
    checked = []
    for split, report in check_data(cfg, SPLITS, depth):
        show(report, split)
        checked.append(report)
    unknown = unknown_types(cfg)
    if not checked:
        raise ConfigError(
            f"{args.config}: names no annotations in COCO's format and no folders of a "
            f'CustomDataset, but {"; ".join(unknown) or "no data"}'
        )
    for sentence in unknown:
        print(f'not looked into: {sentence}')
    if any(report.errors for report in checked):
        raise SystemExit(cli.EXIT_BAD_INPUT)


def unknown_types(cfg: Config) -> list[str]:
    """Tell which data sets are of another kind."""
    from prunet_mm.datasets.coco_check import is_coco
    from prunet_mm.datasets.dataset_config import type_name, unwrapped
    from prunet_mm.datasets.folder_check import is_folders

    found: dict[str, list[str]] = {}
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in unwrapped(loader.dataset) if loader else ():
            if not is_coco(dataset) and not is_folders(dataset):
                found.setdefault(type_name(dataset), []).append(split)
    return [f'{", ".join(splits)} data of type {name}' for name, splits in found.items()]


def show(report: Report, split: str) -> None:
    """Print what a data set holds, and what is wrong with it to stderr."""
    counts = ', '.join(f'{name} {count}' for name, count in report.counts.items()) or 'none'
    print(f'{split}: {report.path}: {report.images} images, {report.unit}: {counts}', flush=True)
    for kind, sentences in (('error', report.errors), ('warning', report.warnings)):
        for sentence in sentences:
            print(f'{kind}: {sentence}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    cli.run(main)
