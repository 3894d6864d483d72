#!/usr/bin/env python
"""Find objects or classes in images, folders or videos, and draw them.

From a config and a checkpoint, or from an exported file alone:

    python tools/infer.py configs/det/retinanet_prunet_digits.py CHECKPOINT IMAGE FOLDER VIDEO
    python tools/infer.py retinanet_prunet_digits.onnx IMAGE FOLDER VIDEO
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine import cli
    from prunet_mm.errors import ConfigError, DataError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from prunet_mm.inference.predictors import Predictor
    from prunet_mm.inference.session import Session

RESULTS = 'predictions.json'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'model', help='a config, with its checkpoint as the next argument, or an exported .onnx'
    )
    parser.add_argument(
        'inputs', nargs='+', metavar='IMAGE', help='images, folders of images, and videos'
    )
    parser.add_argument(
        '--out-dir',
        metavar='FOLDER',
        help=f'where pictures and {RESULTS} go; by default work_dirs/infer/ and the name of the '
        'model',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help=f'draw boxes with at least this score; {RESULTS} has all (default 0.3)',
    )
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    args.exported = Path(args.model).suffix == '.onnx'
    args.checkpoint = None if args.exported else args.inputs.pop(0)
    if not args.inputs:
        parser.error('after a config come its checkpoint and at least one image')
    if args.exported and args.cfg_options:
        parser.error('--cfg-options change a config, and an exported file has none')
    args.out_dir = Path(args.out_dir or Path('work_dirs', 'infer', Path(args.model).stem))
    return args


def main() -> None:
    """Predict image by image; draw, write and print what was found."""
    args = parse_args()

    from prunet_mm.inference.sources import find_sources

    sources = find_sources(args.inputs)
    require_folder(args.out_dir, args.inputs)
    predictor = load(args)

    from prunet_mm.inference.session import Session

    session = Session(predictor, args.out_dir, args.score_thr)
    unreadable = []
    try:
        for source in sources:
            try:
                session.process(source)
            except DataError as error:
                unreadable.append(source)
                print(f'left out {error}', file=sys.stderr, flush=True)
    finally:
        if session.results.images:
            session.results.save(args.out_dir / RESULTS)
            summarise(session, args.out_dir)
    if unreadable:
        names = ', '.join(str(source.path) for source in unreadable)
        raise DataError(f'{len(unreadable)} of {len(sources)} files could not be read: {names}')


def require_folder(folder: Path, inputs: list[str]) -> None:
    """Refuse a folder that pictures cannot go to, or from which the next run would take them.

    Raises:
        ConfigError: It is no folder, cannot be made, or is a folder with the images or in one.
    """
    for path in map(Path, inputs):
        source = (path if path.is_dir() else path.parent).resolve()
        inside = source in folder.resolve().parents and path.is_dir()
        if source == folder.resolve() or inside:
            raise ConfigError(
                f'--out-dir {folder}: the images are taken from there: name another folder, so '
                'that pictures neither replace them nor are taken for images'
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--out-dir {folder}: {error.strerror}') from error


def load(args: argparse.Namespace) -> Predictor:
    """What the command line asks to be run."""
    from prunet_mm.inference.predictors import from_config, from_file

    if args.exported:
        return from_file(args.model)
    cfg = cli.load_config(args.model, args.cfg_options)
    cli.require(cfg, 'model', 'test_dataloader')
    if cfg.get('torch_threads'):
        import torch

        torch.set_num_threads(cfg.torch_threads)

    from prunet_mm.engine.checkpoint import use_safe_loading

    use_safe_loading()
    return from_config(cfg, args.checkpoint)


def summarise(session: Session, folder: Path) -> None:
    """Print what an image takes, and where everything is."""
    from prunet_mm.inference.session import in_parts

    medians = [statistics.median(part) for part in zip(*session.times_ms, strict=True)]
    count = len(session.times_ms)
    print(f'median of {count} image{"s" * (count > 1)}: {in_parts(medians)}')
    print(f'pictures and {RESULTS} are in {folder}')


if __name__ == '__main__':
    cli.run(main)
