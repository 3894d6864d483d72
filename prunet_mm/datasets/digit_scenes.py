"""Scenes composed of scikit-learn's digits: images for a detector that need no download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from prunet_mm.datasets.digits import Digits

CLASSES = Digits.METAINFO['classes']
# Whoever changes what a scene looks like counts this up: it is part of what a set says of itself.
VERSION = 1

SPLITS = dict(train='train', val='test')  # those of the scenes, and of the digits they are made of
MAX_DIGITS = 8
HEIGHTS = (0.12, 0.5)  # of a digit, in parts of the scene's size
MAX_OVERLAP = 0.25  # of two digits' boxes, in parts of the smaller one
CONTRASTS = (50, 150)  # of a digit against the background, in levels of gray
INK = 0.5  # a pixel with this much of a digit's colour or more belongs to its box


class Scene(NamedTuple):
    """An image and the digits in it, in the order in which they were laid over each other.

    Attributes:
        image: uint8 of (size, size, 3), blue, green and red in 0..255.
        boxes: int of (digits, 4): left, top, width and height in pixels.
        labels: int of (digits,), in 0..9.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def compose_scenes(split: str, count: int, size: int, seed: int) -> Iterator[Scene]:
    """Yields scenes that depend on the arguments but for ``count``: more of them begin as fewer.

    Each shows one to eight digits of varying size, slant, width, colour and contrast, which may
    overlap a little, on a background of varying colours, blotches and noise.

    Args:
        split: ``'train'`` or ``'val'``; no digit image is in both.
        count: How many.
        size: Width and height in pixels.
        seed: Of everything that varies.
    """
    digits = Digits(SPLITS[split])
    samples = [digits.get_data_info(index) for index in range(len(digits))]
    for index in range(count):
        # numpy keeps the numbers of `RandomState` as they are for good.
        random = np.random.RandomState([seed, list(SPLITS).index(split), index])
        yield _compose(samples, size, random)


def _compose(samples: list[dict], size: int, random: np.random.RandomState) -> Scene:
    image = _background(size, random)
    boxes, labels = [], []
    for index in random.choice(len(samples), random.randint(1, MAX_DIGITS + 1), replace=False):
        # A crowded scene may have no room for another large one.
        for _ in range(20):
            ink = _place(samples[index]['img'][..., 0], size, random)
            box = cv2.boundingRect((ink >= INK).astype(np.uint8))
            if all(_overlap(box, other) <= MAX_OVERLAP for other in boxes):
                image += ink[..., None] * (_colour(image, box, random) - image)
                boxes.append(box)
                labels.append(samples[index]['gt_label'])
                break
    image += random.normal(0, random.uniform(0, 10), image.shape)
    pixels = np.rint(image).clip(0, 255).astype(np.uint8)
    return Scene(pixels, np.array(boxes), np.array(labels))


def _background(size: int, random: np.random.RandomState) -> np.ndarray:
    """Float of (size, size, 3): a slope between two colours, with soft blotches."""
    first, second = random.uniform(40, 215) + random.uniform(-40, 40, (2, 3))
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    slope = (np.cos(angle) * x + np.sin(angle) * y)[..., None] + 0.5
    grid = random.randint(2, 9)
    blotches = random.uniform(-1, 1, (grid, grid, 3)) * random.uniform(0, 30)
    return first + slope * (second - first) + cv2.resize(blotches, (size, size))


def _place(digit: np.ndarray, size: int, random: np.random.RandomState) -> np.ndarray:
    """Where the digit is, float of (size, size) in 0..1: scaled, slanted, and somewhere inside."""
    height = size * np.exp(random.uniform(*np.log(HEIGHTS)))
    width = height * random.uniform(0.7, 1.2)
    turn, shear = random.uniform(-0.25, 0.25, 2)
    scale = np.diag([width, height]) / len(digit)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.array([[1, shear], [0, 1]]) @ scale
    # The middle of the digit's extent comes to a point from which all four corners are inside.
    rows, columns = np.nonzero(digit.max(1))[0], np.nonzero(digit.max(0))[0]
    low = np.array([columns[0], rows[0]]) - 0.5
    high = np.array([columns[-1], rows[-1]]) + 0.5
    reach = np.abs(matrix) @ (high - low) / 2
    middle = random.uniform(reach, size - 1 - reach)
    shift = middle - matrix @ (low + high) / 2
    ink = cv2.warpAffine(
        digit / 255, np.column_stack([matrix, shift]), (size, size), flags=cv2.INTER_CUBIC
    )
    # Steeper, since an edge of 8 pixels is a wide blur when it is enlarged.
    return ((ink - 0.3) / 0.4).clip(0, 1)


def _overlap(box: tuple, other: tuple) -> float:
    """Common area of two boxes (left, top, width, height), in parts of the smaller one's."""
    (x, y, w, h), (u, v, p, q) = box, other
    common = max(0, min(x + w, u + p) - max(x, u)) * max(0, min(y + h, v + q) - max(y, v))
    return common / min(w * h, p * q)


def _colour(image: np.ndarray, box: tuple, random: np.random.RandomState) -> np.ndarray:
    """A colour that is darker or lighter than what lies under the box, (3,)."""
    x, y, w, h = box
    under = image[y : y + h, x : x + w].mean((0, 1))
    contrast = random.uniform(*CONTRASTS) * random.choice([-1, 1])
    if not 0 <= under.mean() + contrast <= 255:
        contrast = -contrast
    return (under + contrast + random.uniform(-30, 30, 3)).clip(0, 255)
