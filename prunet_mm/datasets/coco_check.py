"""What is wrong with a data set in COCO's format, found before a training starts on it.

mmdet leaves out what it cannot use without a word, or fails deep inside the first batch or, worse,
the first evaluation.
"""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunet_mm.datasets.box_check import are_finite, check_boxes
from prunet_mm.datasets.coco_classes import COCO_CLASSES
from prunet_mm.datasets.dataset_config import type_name
from prunet_mm.datasets.image_check import NOTHING, Depth, check_images
from prunet_mm.datasets.report import Report, some
from prunet_mm.errors import DataError

IMAGE_FIELDS = {'id', 'file_name', 'width', 'height'}
ANNOTATION_FIELDS = {'id', 'image_id', 'category_id', 'bbox', 'area'}
# Python's json guesses them, readers of text do not; the longer marks begin with the shorter.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: 'UTF-8 with a byte order mark',
    codecs.BOM_UTF32_LE: 'UTF-32',
    codecs.BOM_UTF32_BE: 'UTF-32',
    codecs.BOM_UTF16_LE: 'UTF-16',
    codecs.BOM_UTF16_BE: 'UTF-16',
}


def is_coco(dataset: Mapping) -> bool:
    """Whether a data set's config is one of mmdet's `CocoDataset`."""
    return type_name(dataset) == 'CocoDataset'


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
        return COCO_CLASSES
    if isinstance(classes, str) and Path(classes).is_file():  # mmengine reads it, too
        return Path(classes).read_text().splitlines()
    if isinstance(classes, str):
        raise DataError(
            f'metainfo.classes is the text {classes!r}, which is no file with names: write a list '
            f'of them, such as ({classes!r},)'
        )
    return classes


def check_annotations(dataset: Mapping, depth: Depth = NOTHING) -> Report:
    """Looks for everything that is wrong with the annotations of a data set.

    Args:
        dataset: Config of a `CocoDataset`.
        depth: How far to look into the images as well.
    """
    report = Report(annotation_file(dataset))
    try:
        content, classes = _read(report.path), class_names(dataset)
    except DataError as error:
        report.errors.append(str(error))
        return report
    report.images = report.used = len(content['images'])
    _check_categories(report, content['categories'], classes)
    test_mode = bool(dataset.get('test_mode'))
    if not report.errors and _check_fields(report, content, test_mode):
        check_boxes(report, content, classes, test_mode)
        if not test_mode:
            _apply_filter(report, content, dataset.get('filter_cfg') or {}, classes)
        _check_images(report, content['images'], dataset, depth)
    return report


def _read(path: Path) -> dict[str, list[dict]]:
    """The three lists of an annotation file; without annotations it may be a set to predict on."""
    try:
        content = json.loads(_text(path))
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
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


def _text(path: Path) -> str:
    """What a file says; mmdet and pycocotools take it for plain UTF-8.

    Raises:
        DataError: It is written in another encoding.
    """
    data = path.read_bytes()
    marks = [name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)]
    encoding = marks[0] if marks else 'UTF-16' if data[:2] in (b'{\0', b'\0{') else None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        encoding = encoding or f'something else, with byte 0x{data[error.start]:02x} in it'
    if encoding:
        raise DataError(
            f'{path}: is written as {encoding}, which trainings do not read: save it as plain UTF-8'
        )
    return text


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
            f'{report.path}: has no category {some(missing)}, while its categories are '
            f'{some(names)}: set metainfo=dict(classes=...) and num_classes in the config to what '
            'the file has'
        )
    elif (ordered := [name for name in names if name in classes]) != list(classes):
        # mmdet numbers classes by the file and names them by the config.
        report.errors.append(
            f'{report.path}: lists its categories in the order {some(ordered)}, but the config '
            f'has metainfo.classes {some(classes)}: bring them into the same order'
        )
    elif extra := [name for name in names if name not in classes]:
        report.warnings.append(
            f'{report.path}: boxes of {some(extra)} are left out: these categories are no classes '
            'of the config'
        )


def _check_fields(report: Report, content: dict[str, list[dict]], test_mode: bool) -> bool:
    """Whether the entries can be looked at one by one."""
    # pycocotools asks every annotation whether it stands for a crowd; to mmdet none is no.
    of_annotations = ANNOTATION_FIELDS | ({'iscrowd'} if test_mode else set())
    for key, fields in (('images', IMAGE_FIELDS), ('annotations', of_annotations)):
        entries = content[key]
        problems = [(_field_problem(entry, fields), entry) for entry in entries]
        problems = [(problem, entry) for problem, entry in problems if problem]
        if problems:
            problem, entry = problems[0]
            report.errors.append(
                f'{report.path}: {len(problems)} of {len(entries)} {key} are incomplete: the '
                f'first, {_name(entry)}, {problem}'
            )
            continue
        for identity, count in Counter(entry['id'] for entry in entries).most_common(1):
            if count > 1:
                report.errors.append(f'{report.path}: {count} {key} have the same id {identity!r}')
        texts = [entry['id'] for entry in entries if isinstance(entry['id'], str)]
        if key == 'images' and 0 < len(texts) < len(entries):  # numpy makes texts of them all
            report.errors.append(
                f'{report.path}: {len(texts)} of {len(entries)} images have a text as their id, '
                f'the first {texts[0]!r}, the others a number: give all of them one or the other'
            )
    return not report.errors


def _field_problem(entry: dict, fields: set[str]) -> str | None:
    if lacking := fields - entry.keys():
        return f'has no {", ".join(sorted(lacking))}'
    for name in sorted(name for name in fields if name.endswith('id')):
        if type(entry[name]) not in (int, str):
            return f'has {entry[name]!r} as its {name}'
    if 'file_name' in fields:
        return _image_problem(entry)
    for name in ('iscrowd', 'ignore'):
        nothing = () if name in fields else (None,)
        if entry.get(name, 0) not in (0, 1, *nothing):
            return f'has {entry[name]!r} as its {name}'
    return None


def _image_problem(image: dict) -> str | None:
    if not isinstance(image['file_name'], str):
        return f'has {image["file_name"]!r} as its file_name'
    size = (image['width'], image['height'])
    if not are_finite(size) or min(size) <= 0:
        return f'has a width and height of {size} pixels'
    return None


def _apply_filter(
    report: Report, content: dict[str, list[dict]], options: Mapping, classes: Sequence[str]
) -> None:
    """Counts the images that mmdet trains on, and tells of those that ``filter_cfg`` leaves out."""
    known = {category['id'] for category in content['categories'] if category['name'] in classes}
    with_box = {a['image_id'] for a in content['annotations'] if a['category_id'] in known}
    left_out = [
        image
        for image in content['images']
        if (options.get('filter_empty_gt') and image['id'] not in with_box)
        or min(image['width'], image['height']) < options.get('min_size', 0)
    ]
    report.used = report.images - len(left_out)
    if left_out:
        (report.warnings if report.used else report.errors).append(
            f'{report.path}: {len(left_out)} of {report.images} images are not trained on, as '
            f'filter_cfg of the data set says: the first is id {left_out[0]["id"]}'
        )


def _check_images(report: Report, images: list[dict], dataset: Mapping, depth: Depth) -> None:
    prefix = dataset.get('data_prefix')
    if not isinstance(prefix, Mapping) or 'img' not in prefix:
        report.errors.append(
            f'{report.path}: data_prefix of the data set is {prefix!r}, but has to be a dict with '
            'the folder of the images as its img'
        )
        return
    folder = Path(dataset.get('data_root') or '', prefix['img'])
    names = [image['file_name'] for image in images]
    for name, count in Counter(names).most_common(1):
        if count > 1:
            report.warnings.append(f'{report.path}: {count} images have the file_name {name!r}')
    report.files = [os.path.normpath(folder / name) for name in names]
    sizes = [(image['width'], image['height']) for image in images]
    check_images(report, sizes, dataset.get('pipeline') or (), depth)


def _name(entry: dict) -> str:
    return f'id {entry["id"]}' if 'id' in entry else repr(entry)[:80]
