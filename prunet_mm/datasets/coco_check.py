"""What is wrong with a data set in COCO's format, found before a training starts on it.

mmdet leaves out what it cannot use without a word, or fails deep inside the first batch or, worse,
the first evaluation.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prunet_mm.engine.progress import with_progress
from prunet_mm.errors import DataError

IMAGE_FIELDS = {'id', 'file_name', 'width', 'height'}
ANNOTATION_FIELDS = {'id', 'image_id', 'category_id', 'bbox', 'area'}

NO_BOX = 'are not four finite numbers [left, top, width, height], with a number as their area'
BEYOND = 'reach beyond their image'
MISSED = 'so they are left out in training and count as missed in evaluation'


@dataclass
class Report:
    """What is in an annotation file, and what is wrong with it.

    Attributes:
        path: The file.
        images: Number of images.
        boxes: Number of usable boxes by class, in the order of the config's classes.
        errors: What makes a training or an evaluation fail or mean something else, a sentence each.
        warnings: What is left out or looks odd, likewise.
    """

    path: Path
    images: int = 0
    boxes: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def is_coco(dataset: Mapping) -> bool:
    """Whether a data set's config is one of mmdet's `CocoDataset`."""
    kind = dataset.get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2] == 'CocoDataset'


def annotation_file(dataset: Mapping) -> Path:
    """The annotation file that a data set's config names."""
    return Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def class_names(dataset: Mapping) -> Sequence[str]:
    """The classes of a `CocoDataset` by its config: its own, or COCO's.

    Raises:
        DataError: They are no list.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        from mmdet.datasets import CocoDataset

        return CocoDataset.METAINFO['classes']
    if isinstance(classes, str) and Path(classes).is_file():  # mmengine reads it, too
        return Path(classes).read_text().splitlines()
    if isinstance(classes, str):
        raise DataError(
            f'metainfo.classes is the text {classes!r}, which is no file with names: write a list '
            f'of them, such as ({classes!r},)'
        )
    return classes


def require_annotations(dataset: Mapping) -> None:
    """Refuses annotations with which a training or an evaluation would fail; warns of odd ones.

    Takes about as long as mmdet takes to read them.

    Args:
        dataset: Config of a `CocoDataset`.

    Raises:
        DataError: The first thing that is wrong, and how many more there are.
    """
    report = check_annotations(dataset)
    for sentence in report.warnings:
        warnings.warn(sentence, stacklevel=3)
    if report.errors:
        first, *more = report.errors
        rest = f' (tools/check_dataset.py lists {len(more)} more)' if more else ''
        raise DataError(first + rest)


def check_annotations(dataset: Mapping, open_images: bool = False) -> Report:
    """Looks for everything that is wrong with the annotations of a data set.

    Args:
        dataset: Config of a `CocoDataset`.
        open_images: Also whether every image is one, and as large as its annotations say.
    """
    report = Report(annotation_file(dataset))
    try:
        content, classes = _read(report.path), class_names(dataset)
    except DataError as error:
        report.errors.append(str(error))
        return report
    report.images = len(content['images'])
    _check_categories(report, content['categories'], classes)
    test_mode = bool(dataset.get('test_mode'))
    if not report.errors and _check_fields(report, content, test_mode):
        _check_boxes(report, content, classes, test_mode)
        _check_images(report, content['images'], _image_folder(dataset), open_images)
    return report


def _read(path: Path) -> dict[str, list[dict]]:
    """The three lists of an annotation file; without annotations it may be a set to predict on."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    except ValueError as error:  # not UTF-8, or not JSON
        raise DataError(f'{path}: is not JSON ({error})') from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not in COCO's format, which is an object with lists in it")
    content.setdefault('annotations', [])
    for key in ('images', 'categories', 'annotations'):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path}: has no list of {key}, so it is not in COCO's format")
        if not entries and key != 'annotations':
            raise DataError(f'{path}: has no {key}: the list of them is empty')
    return content


def _check_categories(report: Report, categories: list[dict], classes: Sequence[str]) -> None:
    names = [category.get('name') for category in categories]
    ids = [category.get('id') for category in categories]
    types = {type(name) for name in names} | {type(identity) for identity in ids}
    if types != {int, str} or len(set(ids)) < len(ids):
        report.errors.append(
            f'{report.path}: every category takes a "name" and, as its "id", a number of its own'
        )
    elif missing := [name for name in classes if name not in names]:
        report.errors.append(
            f'{report.path}: has no category {_some(missing)}, while its categories are '
            f'{_some(names)}: set metainfo=dict(classes=...) and num_classes in the config to what '
            'the file has'
        )
    elif (ordered := [name for name in names if name in classes]) != list(classes):
        # mmdet numbers classes by the file and names them by the config.
        report.errors.append(
            f'{report.path}: lists its categories in the order {_some(ordered)}, but the config '
            f'has metainfo.classes {_some(classes)}: bring them into the same order'
        )
    elif extra := [name for name in names if name not in classes]:
        report.warnings.append(
            f'{report.path}: boxes of {_some(extra)} are left out: these categories are no classes '
            'of the config'
        )


def _check_fields(report: Report, content: dict[str, list[dict]], test_mode: bool) -> bool:
    """Whether the entries can be looked at one by one."""
    # pycocotools asks every annotation whether it stands for a crowd; to mmdet none is no.
    of_annotations = ANNOTATION_FIELDS | ({'iscrowd'} if test_mode else set())
    for key, fields in (('images', IMAGE_FIELDS), ('annotations', of_annotations)):
        problems = [(_field_problem(entry, fields), entry) for entry in content[key]]
        problems = [(problem, entry) for problem, entry in problems if problem]
        if problems:
            problem, entry = problems[0]
            report.errors.append(
                f'{report.path}: {len(problems)} of {len(content[key])} {key} are incomplete: the '
                f'first, {_name(entry)}, {problem}'
            )
            continue
        for identity, count in Counter(entry['id'] for entry in content[key]).most_common(1):
            if count > 1:
                report.errors.append(f'{report.path}: {count} {key} have the same id {identity!r}')
    return not report.errors


def _field_problem(entry: dict, fields: set[str]) -> str | None:
    if lacking := fields - entry.keys():
        return f'has no {", ".join(sorted(lacking))}'
    for name in sorted(name for name in fields if name.endswith('id')):
        if not isinstance(entry[name], (int, str)):
            return f'has {entry[name]!r} as its {name}'
    if 'iscrowd' in fields and entry['iscrowd'] not in (0, 1):
        return f'has {entry["iscrowd"]!r} as its iscrowd'
    if 'file_name' in fields and not isinstance(entry['file_name'], str):
        return f'has {entry["file_name"]!r} as its file_name'
    if 'file_name' in fields:
        size = (entry['width'], entry['height'])
        if not _are_finite(size) or min(size) <= 0:
            return f'has a width and height of {size} pixels'
    return None


def _are_finite(values: Sequence) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _check_boxes(report: Report, content: dict, classes: Sequence[str], test_mode: bool) -> None:
    images = {image['id']: image for image in content['images']}
    categories = {category['id']: category['name'] for category in content['categories']}
    found: dict[str, list[dict]] = {}
    boxes = Counter()
    for annotation in content['annotations']:
        problem = _box_problem(annotation, images, categories)
        if problem:
            found.setdefault(problem, []).append(annotation)
        ignored = annotation.get('ignore') or annotation.get('iscrowd')
        if problem in (None, BEYOND) and not ignored:
            boxes[categories[annotation['category_id']]] += 1
    report.boxes = {name: boxes[name] for name in classes}
    for problem, entries in found.items():
        sentences = report.errors if problem == NO_BOX else report.warnings
        sentences.append(
            f'{report.path}: {len(entries)} of {len(content["annotations"])} boxes {problem}: the '
            f'first is annotation {entries[0]["id"]}'
        )
    if not any(report.boxes.values()):
        sentences = report.warnings if test_mode else report.errors
        sentences.append(
            f'{report.path}: not one of its {len(images)} images has a box that could be '
            + ('evaluated' if test_mode else 'learnt from')
        )


def _box_problem(annotation: dict, images: dict, categories: dict) -> str | None:
    box, area = annotation['bbox'], annotation['area']
    if not isinstance(box, list) or len(box) != 4 or not _are_finite([*box, area]):
        return NO_BOX
    image = images.get(annotation['image_id'])
    if image is None:
        return 'belong to no image and are left out'
    if annotation['category_id'] not in categories:
        return 'belong to no category and are left out'
    x, y, width, height = box
    if width < 1 or height < 1 or area <= 0:
        return f'have no area, or a side below a pixel, {MISSED}'
    right, bottom = image['width'], image['height']
    if x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
        return f'lie outside of their image, {MISSED}'
    # Annotators and rounding miss by a pixel.
    if min(x, y) < -1 or x + width > right + 1 or y + height > bottom + 1:
        return BEYOND
    return None


def _image_folder(dataset: Mapping) -> Path:
    return Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', ''))


def _check_images(report: Report, images: list[dict], folder: Path, open_them: bool) -> None:
    names = [image['file_name'] for image in images]
    missing = list(_missing(folder, names))
    if missing:
        report.errors.append(
            f'{len(missing)} of {len(names)} images of {report.path} are missing, the first is '
            f'{missing[0]}'
        )
    elif open_them:
        images = with_progress(images, len(images), f'opening the images of {report.path}')
        report.errors.extend(filter(None, (_image_problem(folder, image) for image in images)))


def _missing(folder: Path, names: list[str]) -> Iterator[Path]:
    """Yields the files that are not there; lists folders, since that is faster than to ask."""
    listed: dict[str, set[str]] = {}
    for name in names:
        parent, base = os.path.split(os.path.join(folder, name))
        if parent not in listed:
            listed[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if base not in listed[parent]:
            yield Path(parent, base)


def _image_problem(folder: Path, image: dict) -> str | None:
    from PIL import Image

    path = folder / image['file_name']
    try:
        with Image.open(path) as opened:
            size = opened.size
    except OSError:
        return f'{path}: is not an image that can be read'
    # The other way round where a camera was turned: loaders follow the note that it left.
    if sorted(size) != sorted((image['width'], image['height'])):
        return (
            f'{path}: has {size[0]} x {size[1]} pixels, but {image["width"]} x {image["height"]} '
            'by its annotations'
        )
    return None


def _name(entry: dict) -> str:
    return f'id {entry["id"]}' if 'id' in entry else repr(entry)[:80]


def _some(names: Sequence[str]) -> str:
    shown = ', '.join(repr(name) for name in names[:10])
    return f'{shown} and {len(names) - 10} more' if len(names) > 10 else shown
