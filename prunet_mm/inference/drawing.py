"""Pictures of what was found, readable whatever size the image has."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prunet_mm.inference.reading import Findings

MIN_SIDE = 512  # pixels, of the longer side: smaller images are enlarged to it
LETTERS = 45  # lines of text in the longer side: readable when a large picture is shrunk, too
MIN_TEXT = 14  # pixels
ROWS = 6  # of labels above and below a box
GOLDEN = 0.618  # turns of the colour circle from one class to the next: no two of a few are alike


def draw(image: np.ndarray, found: Findings, classes: Sequence[str]) -> np.ndarray:
    """A picture of an image with what was found in it.

    Boxes have their class and score beside them, where there is room outside of other labels. The
    classes of a classifier are listed below the image, which they do not cover.

    Args:
        image: (H, W, 3), uint8, blue first; stays as it is.
        found: In pixels of the image.
        classes: Names of the classes, by number.

    Returns:
        (H', W', 3), uint8, blue first: enlarged by a whole number where the image is small.
    """
    factor = max(1, math.ceil(MIN_SIDE / max(image.shape[:2])))
    picture = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    if factor > 1:
        picture = picture.resize([side * factor for side in picture.size], Image.BICUBIC)
    text = max(MIN_TEXT, max(picture.size) // LETTERS)
    if found.boxes is None:
        picture = _with_list(picture, found, classes, text)
    else:
        _draw_boxes(picture, found._replace(boxes=found.boxes * factor), classes, text)
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])


def _draw_boxes(picture: Image.Image, found: Findings, classes: Sequence[str], text: int) -> None:
    canvas, taken = ImageDraw.Draw(picture), []
    boxes = [tuple(map(float, box)) for box in found.boxes]
    for box, label in reversed(list(zip(boxes, found.labels, strict=True))):  # the best on top
        canvas.rectangle(box, outline=_colour(int(label)), width=max(2, text // 7))
    for box, label, score in zip(boxes, found.labels, found.scores, strict=True):
        words = _fitting(f'{classes[label]} {score:.2f}', picture.width, text)
        place = _place(box, _extent(words, text), picture.size, taken)
        taken.append(place)
        _write(canvas, place, words, text, _colour(int(label)))


def _with_list(
    picture: Image.Image, found: Findings, classes: Sequence[str], text: int
) -> Image.Image:
    """The picture with lines of text below it."""
    line = _extent('', text)[1]
    longer = Image.new('RGB', (picture.width, picture.height + line * len(found.scores)), 'white')
    longer.paste(picture)
    canvas = ImageDraw.Draw(longer)
    for number, (score, label) in enumerate(zip(found.scores, found.labels, strict=True)):
        top = picture.height + number * line
        canvas.rectangle((0, top, score * picture.width, top + line - 1), fill='#b8d4ee')
        words = _fitting(f'{100 * score:4.1f} %  {classes[label]}', picture.width, text)
        canvas.text((text // 4, top), words, fill='black', font=_font(text))
    return longer


def _place(
    box: tuple[float, ...], extent: tuple[int, int], size: tuple[int, int], taken: list[tuple]
) -> tuple[float, ...]:
    """Where a label goes: the first free place at its box, or else the one that hides least."""
    places = [_inside(corner, extent, size) for corner in _corners(box, extent)]
    return min(places, key=lambda place: sum(_shared(place, other) for other in taken))


def _corners(box: tuple[float, ...], extent: tuple[int, int]) -> Iterator[tuple[float, float]]:
    left, top, right, bottom = box
    width, height = extent
    for x in (left, right - width):
        yield from ((x, top - height), (x, bottom))
    yield from ((right, top), (left - width, top))
    yield from ((left, top), (left, bottom - height))
    for row in range(1, ROWS):  # away from where others are crowded
        yield from ((left, bottom + row * height), (left, top - (row + 1) * height))


def _inside(
    corner: tuple[float, float], extent: tuple[int, int], size: tuple[int, int]
) -> tuple[float, ...]:
    x, y = (
        max(0, min(at, side - length))
        for at, length, side in zip(corner, extent, size, strict=True)
    )
    return x, y, x + extent[0], y + extent[1]


def _shared(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """The area that two rectangles have in common."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, width) * max(0, height)


def _write(
    canvas: ImageDraw.ImageDraw, place: tuple[float, ...], words: str, text: int, colour: tuple
) -> None:
    canvas.rectangle(place, fill=colour)
    luminance = np.dot(colour, (0.299, 0.587, 0.114))
    fill = 'black' if luminance > 128 else 'white'
    canvas.text((place[0] + text // 6, place[1]), words, fill=fill, font=_font(text))


def _fitting(words: str, width: int, text: int) -> str:
    """The words, with dots in place of what does not fit into a width."""
    if _extent(words, text)[0] <= width:
        return words
    while len(words) > 1 and _extent(words + '…', text)[0] > width:
        words = words[:-1]
    return words + '…'


def _extent(words: str, text: int) -> tuple[int, int]:
    font = _font(text)
    return math.ceil(font.getlength(words)) + text // 3, sum(font.getmetrics())


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # whose font has more alphabets than Pillow's own

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), size
    )


def _colour(label: int) -> tuple[int, ...]:
    colour = colorsys.hls_to_rgb(label * GOLDEN % 1, 0.45 + 0.15 * (label % 2), 0.9)
    return tuple(round(255 * part) for part in colour)
