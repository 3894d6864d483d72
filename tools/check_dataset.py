#!/usr/bin/env python
"""Check the annotations in COCO's format that a config trains, validates and tests on.

Prints what each annotation file holds and, a sentence each, what is wrong with it. Trainings do
the same but for opening the images, and stop at the first error.

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
    from prunet_mm.datasets.coco_check import Report


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config file')
    cli.add_cfg_options(parser)
    parser.add_argument(
        '--no-images', action='store_true', help='do not open the images, which takes longest'
    )
    return parser.parse_args()


def main() -> None:
    """Check each annotation file once."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options)

    from prunet_mm.datasets.coco_check import annotation_file, check_annotations, is_coco
    from prunet_mm.datasets.layout import require_files, require_same_file, unwrapped

    reports = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for dataset in filter(is_coco, unwrapped(loader.dataset) if loader else ()):
            require_files(dataset, cfg.get('data_layout'))
            require_same_file(dataset, split, cfg.get(f'{split}_evaluator'))
            path = annotation_file(dataset)
            if path not in reports:
                reports[path] = check_annotations(dataset, open_images=not args.no_images)
                show(reports[path], split)
    if not reports:
        raise ConfigError(f"{args.config}: names no annotations in COCO's format")
    if any(report.errors for report in reports.values()):
        raise SystemExit(cli.EXIT_BAD_INPUT)


def show(report: Report, split: str) -> None:
    """Print what a file holds, and what is wrong with it to stderr."""
    boxes = ', '.join(f'{name} {count}' for name, count in report.boxes.items())
    print(f'{split}: {report.path}: {report.images} images, boxes: {boxes or "none"}', flush=True)
    for kind, sentences in (('error', report.errors), ('warning', report.warnings)):
        for sentence in sentences:
            print(f'{kind}: {sentence}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    cli.run(main)
