"""What is wrong with the boxes of a data set in COCO's format, box by box and as a whole.

mmdet decides which boxes a detector learns from, and pycocotools which ones it has to find, by
rules of their own that contradict each other. What is said here of a box is what happens to it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prunet_mm.datasets.report import Report, some

NO_NUMBERS = 'are not four finite numbers [left, top, width, height], with a number as their area'
LARGEST_AREA = 1e5**2  # pixels, of what pycocotools counts
# Shares of the boxes: from where on those beyond their image are suspicious, from where on they are
# an error whatever its cause, and how many another reading of the numbers has to make fit. They say
# something from that number of boxes on.
SUSPICIOUS, CERTAIN, CONVINCING, SOME_BOXES = 0.1, 0.3, 0.98, 3
FAR_FROM_THE_EDGE, MANY_BOXES = 0.6, 30  # of an image's sides, where boxes are of smaller images


class Box(NamedTuple):
    """An annotation as the checks look at it; image and category are None if there is no such."""

    annotation: dict
    image: dict | None
    category: str | None

    @property
    def inside(self) -> bool:
        """Whether some of it lies on the image."""
        x, y, width, height = self.annotation['bbox']
        right, bottom = self.image['width'], self.image['height']
        return (
            max(0, min(x + width, right) - max(x, 0)) * max(0, min(y + height, bottom) - max(y, 0))
            > 0
        )

    @property
    def is_crowd(self) -> bool:
        return bool(self.annotation.get('iscrowd'))


class BoxCheck(NamedTuple):
    """Something that a box can be, and what happens to such boxes."""

    holds: Callable[[Box], bool]
    problem: str
    counts: bool = False  # whether it is learnt from, or has to be found, nevertheless


def has_no_numbers(box: Box) -> bool:
    """Whether it is no box at all, which ends a training or an evaluation in a traceback."""
    numbers = box.annotation['bbox']
    return not (
        isinstance(numbers, list)
        and len(numbers) == 4
        and are_finite([*numbers, box.annotation['area']])
    )


def are_finite(values: Iterable) -> bool:
    """Whether all are numbers, neither infinite nor NaN nor too large to calculate with."""
    return all(type(value) in (int, float) and -1e15 < value < 1e15 for value in values)


def _reaches_beyond(box: Box) -> bool:
    # Annotators and rounding miss by a pixel.
    return not _fits(box.annotation['bbox'], box.image)


def _fits(numbers: Sequence[float], image: dict) -> bool:
    x, y, width, height = numbers
    right, bottom = image['width'] + 1, image['height'] + 1
    return min(x, y) >= -1 and x + width <= right and y + height <= bottom


def _has_a_short_side(box: Box) -> bool:
    return min(box.annotation['bbox'][2:]) < 1


NOWHERE = [
    BoxCheck(lambda box: box.image is None, 'belong to no image and are left out'),
    BoxCheck(lambda box: box.category is None, 'belong to no category and are left out'),
]
# In the order in which they are told: what leaves a box out before what does not.
IN_TRAINING = [
    *NOWHERE,
    BoxCheck(
        lambda box: bool(box.annotation.get('ignore')),
        'carry "ignore" and are left out in training',
    ),
    BoxCheck(
        lambda box: box.annotation['area'] <= 0,
        'have an area of 0 or less and are left out in training',
    ),
    BoxCheck(_has_a_short_side, 'have a side below a pixel and are left out in training'),
    BoxCheck(lambda box: not box.inside, 'lie outside of their image and are left out in training'),
    BoxCheck(_reaches_beyond, 'reach beyond their image', counts=True),
]
IN_EVALUATION = [
    *NOWHERE,
    BoxCheck(
        lambda box: box.annotation['area'] < 0,
        'have a negative area: they count neither as found nor as missed',
    ),
    BoxCheck(
        lambda box: box.annotation['area'] > LARGEST_AREA,
        f'have an area above {LARGEST_AREA:.0e} pixels: they count neither as found nor as missed',
    ),
    BoxCheck(
        lambda box: min(box.annotation['bbox'][2:]) <= 0,
        'have no width or height, so that they cannot be found and count as missed',
        counts=True,
    ),
    BoxCheck(
        lambda box: not box.inside,
        'lie outside of their image, so that they cannot be found and count as missed',
        counts=True,
    ),
    BoxCheck(
        lambda box: bool(box.annotation.get('ignore')),
        'carry "ignore", which evaluations do not ask for (but for "iscrowd"): they have to be '
        'found',
        counts=True,
    ),
    BoxCheck(
        lambda box: box.annotation['area'] == 0,
        'have an area of 0: they have to be found, although none like them are learnt from',
        counts=True,
    ),
    BoxCheck(
        _has_a_short_side,
        'have a side below a pixel: they have to be found, although none like them are learnt from',
        counts=True,
    ),
    BoxCheck(_reaches_beyond, 'reach beyond their image', counts=True),
]

# How four numbers may have been meant, and what they are as left, top, width, height.
READINGS = {
    '[left, top, right, bottom]': lambda x, y, right, bottom: (x, y, right - x, bottom - y),
    '[centre x, centre y, width, height]': lambda x, y, w, h: (x - w / 2, y - h / 2, w, h),
    '[top, left, height, width]': lambda y, x, height, width: (x, y, width, height),
}


def check_boxes(report: Report, content: Mapping, classes: Sequence[str], test_mode: bool) -> None:
    """Counts the boxes of every class, and looks for what is wrong with them.

    Args:
        report: Takes both.
        content: The annotation file's; every entry has its fields.
        classes: Those of the config, which the file's categories have.
        test_mode: Whether the boxes have to be found rather than learnt from.
    """
    images = {image['id']: image for image in content['images']}
    categories = {category['id']: category['name'] for category in content['categories']}
    annotations, counts = content['annotations'], Counter()
    found: dict[str, list[dict]] = {}
    usable: list[Box] = []
    for annotation in annotations:
        box = Box(
            annotation,
            images.get(annotation['image_id']),
            categories.get(annotation['category_id']),
        )
        if has_no_numbers(box):
            found.setdefault(NO_NUMBERS, []).append(annotation)
            continue
        if box.category is not None and box.category not in classes:
            continue  # which has been said of the category
        if box.image is not None:
            usable.append(box)
        check = _first(IN_EVALUATION if test_mode else IN_TRAINING, box)
        if check is not None:
            found.setdefault(check.problem, []).append(annotation)
        counts[box.category] += not box.is_crowd and (check is None or check.counts)
    report.counts = {name: counts[name] for name in classes}
    for problem, entries in found.items():
        _tell(report, problem, entries, annotations)
    report.errors.extend(filter(None, [_wrong_layout(report, usable)]))
    for problem in (_made_for_smaller_images(usable), _repeated(annotations)):
        if problem:
            report.warnings.append(f'{report.path}: {problem}')
    _check_counts(report, test_mode)


def _first(checks: list[BoxCheck], box: Box) -> BoxCheck | None:
    for check in checks:
        if check.holds(box):
            # A crowd is never counted, whatever else is said of it.
            return None if box.is_crowd and check.counts else check
    return None


def _tell(report: Report, problem: str, entries: list[dict], annotations: list[dict]) -> None:
    is_error = problem == NO_NUMBERS or (
        problem in {check.problem for check in NOWHERE} and 2 * len(entries) > len(annotations)
    )
    first, clue = entries[0], ''
    if is_error and problem == NOWHERE[0].problem:
        clue = f', of image {first["image_id"]!r}'
    elif is_error and problem == NOWHERE[1].problem:
        clue = f', of category {first["category_id"]!r}'
    (report.errors if is_error else report.warnings).append(
        f'{report.path}: {len(entries)} of {len(annotations)} boxes {problem}: the first is '
        f'annotation {first["id"]}{clue}'
    )


def _wrong_layout(report: Report, boxes: list[Box]) -> str | None:
    """Names what the four numbers seem to be, where they do not fit as they are."""
    boxes = [box for box in boxes if not box.is_crowd]
    if len(boxes) < SOME_BOXES:
        return None
    numbers = [box.annotation['bbox'] for box in boxes]
    if all(0 <= number <= 1 for four in numbers for number in four):
        return (
            f'{report.path}: all numbers of its {len(boxes)} boxes are between 0 and 1, as shares '
            "of the image's sides: COCO's format has pixels [left, top, width, height]"
        )
    misfits = [box for box in boxes if _reaches_beyond(box)]
    share = len(misfits) / len(boxes)
    suspicious = share >= SUSPICIOUS and len(misfits) >= SOME_BOXES
    told = f'{report.path}: the areas of its boxes are not those of their numbers'
    if misfits:
        told = (
            f'{report.path}: {len(misfits)} of {len(boxes)} boxes reach beyond their image, the '
            f'first is annotation {misfits[0].annotation["id"]}'
        )
    for layout, reading in READINGS.items():
        fitting = sum(
            min(read[2:]) > 0 and _fits(read, box.image)
            for box, read in ((box, reading(*box.annotation['bbox'])) for box in boxes)
        )
        if fitting >= CONVINCING * len(boxes) and (suspicious or _areas_say(boxes, reading)):
            return f'{told}; all would fit as {layout}: write them as [left, top, width, height]'
    if suspicious and share >= CERTAIN:
        return (
            f'{told}: most likely they were made for images of another size; if not, cut them off '
            'at the edges'
        )
    return None


def _areas_say(boxes: list[Box], reading: Callable) -> bool:
    """Whether the areas are those of the other reading, and never those of the numbers as told."""

    def close(area: float, numbers: Sequence[float]) -> bool:
        return math.isclose(area, numbers[2] * numbers[3], rel_tol=0.01)

    pairs = [(box.annotation['area'], box.annotation['bbox']) for box in boxes]
    other = sum(close(area, reading(*numbers)) for area, numbers in pairs)
    own = sum(close(area, numbers) for area, numbers in pairs)
    return other >= CONVINCING * len(boxes) and own <= (1 - CONVINCING) * len(boxes)


def _made_for_smaller_images(boxes: list[Box]) -> str | None:
    """Tells of boxes that all keep to the upper left part of their images."""
    images = {box.annotation['image_id'] for box in boxes}
    if len(boxes) < MANY_BOXES or len(images) < SOME_BOXES:
        return None
    corners = [
        ((x + width) / box.image['width'], (y + height) / box.image['height'])
        for box in boxes
        for x, y, width, height in [box.annotation['bbox']]
    ]
    right, bottom = (max(sides) for sides in zip(*corners, strict=True))
    if max(right, bottom) > FAR_FROM_THE_EDGE:
        return None
    return (
        f'no box reaches beyond {right:.0%} of the width and {bottom:.0%} of the height of its '
        'image, as if they were made for smaller images'
    )


def _repeated(annotations: list[dict]) -> str | None:
    """Tells of boxes that are there more than once."""
    seen, repeated = set(), []
    for annotation in annotations:
        key = (annotation['image_id'], annotation['category_id'], str(annotation['bbox']))
        if key in seen:
            repeated.append(annotation)
        seen.add(key)
    if not repeated:
        return None
    return (
        f'{len(repeated)} of {len(annotations)} boxes are there already, in the same image and '
        f'category: the first is annotation {repeated[0]["id"]}'
    )


def _check_counts(report: Report, test_mode: bool) -> None:
    if not any(report.counts.values()):
        (report.warnings if test_mode else report.errors).append(
            f'{report.path}: not one of its {report.images} images has a box that could be '
            + ('evaluated' if test_mode else 'learnt from')
        )
    elif not test_mode and (without := [name for name, n in report.counts.items() if not n]):
        report.warnings.append(
            f'{report.path}: no box is of class {some(without)}, which cannot be learnt'
        )
