"""Makes the pictures of the README and the docs from runs, small enough to be committed.

    python benchmarks/pictures.py work_dirs/demo work_dirs/frontier work_dirs/detect/pictures

`make pictures` runs it behind the searches and the training that it needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from prunet_mm.engine.cli import run
from prunet_mm.errors import DataError

IMAGES = Path(__file__).resolve().parents[1] / 'docs/images'
SEARCH = ('network', 'latency', 'widths', 'candidates')
COLORS = 48  # of a plot: a palette takes a third of the space


def main() -> None:
    """Write the pictures to docs/images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('search', type=Path, help='work dir of a search')
    parser.add_argument('frontier', type=Path, help='work dir of a search for several latencies')
    parser.add_argument('detections', type=Path, help='folder that tools/test.py --show-dir wrote')
    args = parser.parse_args()
    for name in SEARCH:
        plot(args.search / f'{name}.png')
    plot(args.frontier / 'frontier.png')
    tile(sorted(args.detections.rglob('*.png'))[:4], IMAGES / 'detections.jpg')


def plot(path: Path) -> None:
    """Write a plot with few colours."""
    image = opened(path).convert('RGB').quantize(COLORS, dither=Image.Dither.NONE)
    image.save(IMAGES / path.name, optimize=True)


def tile(paths: list[Path], out: Path, width: int = 1000) -> None:
    """Write some pictures below each other, half beside half, as one of at most this width."""
    if not paths:
        raise DataError('there is no picture in the folder of detections: run make detect')
    images = [opened(path).convert('RGB') for path in paths]
    size = images[0].size
    columns = min(2, len(images))
    sheet = Image.new('RGB', (columns * size[0], -(-len(images) // columns) * size[1]), 'white')
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * size[0], index // columns * size[1]))
    sheet.thumbnail((width, width))
    sheet.save(out, quality=85)


def opened(path: Path) -> Image.Image:
    """Open a picture.

    Raises:
        DataError: It is not there.
    """
    if not path.exists():
        raise DataError(f'{path} is missing: run what makes it, see make pictures')
    return Image.open(path)


if __name__ == '__main__':
    run(main)
