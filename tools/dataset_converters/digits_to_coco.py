#!/usr/bin/env python
"""Write a small data set for detection, in COCO's format: scenes composed of real digits.

The digits are the handwritten ones that come with scikit-learn, so nothing is downloaded.

    python tools/dataset_converters/digits_to_coco.py
    python tools/train.py configs/det/retinanet_prunet_digits.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

try:
    from prunet_mm.engine.cli import run
    from prunet_mm.errors import ConfigError, DataError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

MIN_SIZE = 96  # pixels, of a scene: smaller ones would hold digits of a few pixels
QUALITY = 95  # of the JPEG files

README = """\
# Composed scenes of digits

**These images are composed, not photographed.** `tools/dataset_converters/digits_to_coco.py` of
prunet_mm put handwritten digits of varying size, slant, colour and contrast, which may overlap a
little, on backgrounds made of random colours, blotches and noise. They serve to try a detector
where no other data set is at hand; a mAP on them says nothing about photographs.

The digits are the 1,797 images of 8 x 8 pixels that come with scikit-learn: the test set of
*Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning
Repository). Scenes for training and for validation are made of different images of digits.

    annotations/SPLIT.json   COCO format: the categories are the digits 0 to 9, with ids 1 to 10
    SPLIT/NUMBER.jpg         {size} x {size} pixels

| split | scenes | digits |
|---|---|---|
{splits}

Made with `--train {train} --val {val} --size {size} --seed {seed}`.
"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out', default='data/digits_coco', help='the folder (default: %(default)s)'
    )
    for split, count in dict(train=6000, val=300).items():
        parser.add_argument(
            f'--{split}',
            type=int,
            default=count,
            metavar='N',
            help=f'scenes in the {split} split (default: {count})',
        )
    parser.add_argument(
        '--size', type=int, default=128, metavar='PX', help='width and height (default: 128)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of everything that varies (default: 0)'
    )
    return parser.parse_args()


def main() -> None:
    """Make the set beside its place and move it there as a whole."""
    args = parse_args()
    check(args)
    out = Path(args.out)
    info = description(args)
    if out.is_dir() and any(out.iterdir()):
        if found_info(out) != info:
            raise ConfigError(
                f'{out} holds something else than was asked for: remove it or give another --out'
            )
        print(f'{out} is there already')
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
    except OSError as error:
        raise DataError(f'cannot write to {out.parent}: {error.strerror}') from error
    try:
        write(folder, args, info)
        folder.chmod(0o755)  # a temporary folder is for its owner alone
        folder.replace(out)
    except OSError as error:
        raise DataError(f'cannot write {out}: {error.strerror}') from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f'wrote {out}')


def check(args: argparse.Namespace) -> None:
    """Refuses numbers that make no data set.

    Raises:
        ConfigError: Names the option and what it takes.
    """
    for option, least in dict(train=1, val=1, size=MIN_SIZE, seed=0).items():
        if getattr(args, option) < least:
            raise ConfigError(
                f'--{option} {getattr(args, option)}: has to be a whole number of at least {least}'
            )


def description(args: argparse.Namespace) -> dict:
    """What the annotations say of the set they belong to."""
    from prunet_mm.datasets.digit_scenes import VERSION

    settings = {name: getattr(args, name) for name in ('train', 'val', 'size', 'seed')}
    return dict(
        description="Scenes composed of scikit-learn's handwritten digits; not photographs",
        composed=True,
        version=VERSION,
        **settings,
    )


def found_info(folder: Path) -> dict | None:
    """What the set that is there says of itself; None where there is no complete one."""
    try:
        return json.loads((folder / 'annotations/val.json').read_text())['info']
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(folder: Path, args: argparse.Namespace, info: dict) -> None:
    """Write both splits, and what they are."""
    (folder / 'annotations').mkdir()
    rows = []
    for split in ('train', 'val'):
        content = dict(info=info, **write_split(folder, split, args))
        (folder / f'annotations/{split}.json').write_text(json.dumps(content))
        rows.append(f'| {split} | {len(content["images"])} | {len(content["annotations"])} |')
    settings = {name: info[name] for name in ('train', 'val', 'size', 'seed')}
    (folder / 'README.md').write_text(README.format(splits='\n'.join(rows), **settings))


def write_split(folder: Path, split: str, args: argparse.Namespace) -> dict:
    """Write the images of one split; returns COCO's ``images``, ``annotations``, ``categories``."""
    import cv2

    from prunet_mm.datasets.digit_scenes import CLASSES, compose_scenes
    from prunet_mm.engine.progress import with_progress

    (folder / split).mkdir()
    images, annotations = [], []
    count = getattr(args, split)
    scenes = compose_scenes(split, count, args.size, args.seed)
    scenes = with_progress(scenes, count, f'composing scenes, {split}')
    for image_id, scene in enumerate(scenes, start=1):
        name = f'{image_id:06d}.jpg'
        _, data = cv2.imencode('.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        (folder / split / name).write_bytes(data.tobytes())
        images.append(dict(id=image_id, file_name=name, width=args.size, height=args.size))
        for box, label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)]
    return dict(images=images, annotations=annotations, categories=categories)


if __name__ == '__main__':
    run(main)
