"""What is wrong with images in a folder per class, or in a list of images with their labels.

mmpretrain numbers the classes by the sorted names of all folders that it finds, so one that is
missing in a split, or that is no class, moves the labels of all that come after it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prunet_mm.datasets.dataset_config import type_name
from prunet_mm.datasets.image_check import NOTHING, Depth, check_images
from prunet_mm.datasets.report import Report, some
from prunet_mm.errors import DataError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # mmpretrain's default
PICTURES = ('.webp', '.tiff', '.gif', '.jp2', '.jfif', '.heic', '.tga')  # that it leaves out
# Left behind by systems and programs; folders that begin with a dot are as well.
NO_CLASSES = {
    '__MACOSX',
    '__pycache__',
    '@eaDir',
    '$RECYCLE.BIN',
    'System Volume Information',
    'lost+found',
}


def is_folders(dataset: Mapping) -> bool:
    """Whether a data set's config is one of mmpretrain's `CustomDataset` with labels."""
    return type_name(dataset) == 'CustomDataset' and dataset.get('with_label', True)


def image_folder(dataset: Mapping) -> Path:
    """The folder in which the classes' folders are, or to which a list's paths are relative."""
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path', '')
    return Path(dataset.get('data_root') or '', prefix)


def class_folders(dataset: Mapping) -> list[str]:
    """The names of the folders that mmpretrain takes for classes, in the order of their labels.

    Raises:
        DataError: The folder around them cannot be read.
    """
    root = image_folder(dataset)
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise DataError(f'{root}: cannot be read: {error.strerror}') from None


def check_folders(
    dataset: Mapping, num_classes: int | None = None, depth: Depth = NOTHING
) -> Report:
    """Looks for what is wrong with a data set for classification.

    Args:
        dataset: Config of a `CustomDataset`.
        num_classes: How many the head tells apart, None if it does not say.
        depth: How far to look into the images as well.
    """
    if dataset.get('ann_file'):
        report = Report(Path(dataset.get('data_root') or '', dataset['ann_file']), unit='images')
        _read_list(report, image_folder(dataset), named_classes(dataset), num_classes)
    else:
        report = Report(image_folder(dataset), unit='images')
        _read_folders(report, dataset)
        _check_number(report, named_classes(dataset), num_classes)
    report.images = report.used = len(report.files)
    if report.files and not report.errors:
        check_images(report, None, dataset.get('pipeline') or (), depth)
    return report


def compare_folders(
    dataset: Mapping, split: str, others: Mapping, other_split: str
) -> Iterator[str]:
    """Yields what is wrong where two splits do not have the same class folders, in the same order.

    Args:
        dataset: Config of a data set with a folder per class.
        split: What it is for: ``'val'``, for instance.
        others: Config of another such data set.
        other_split: What that one is for.
    """
    names, other_names = class_folders(dataset), class_folders(others)
    if names == other_names:
        return
    lacking, extra = set(other_names) - set(names), set(names) - set(other_names)
    parts = [f'lacks {some(sorted(lacking))}'] if lacking else []
    parts += [f'has {some(sorted(extra))} as well'] if extra else []
    yield (
        f'{image_folder(dataset)}: this folder for {split} {" and ".join(parts)}, against '
        f'{image_folder(others)} for {other_split}: labels are numbers in the order of the names, '
        'so they would mean other classes; have the same folders in both, empty ones if need be'
    )


def named_classes(dataset: Mapping) -> Sequence[str] | None:
    """The classes that a data set's config names, maybe in a file; None if it names none."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and Path(classes).is_file():  # mmengine reads it, too
        return Path(classes).read_text().splitlines()
    return classes


def _read_folders(report: Report, dataset: Mapping) -> None:
    """Counts the images of each class, and tells what is no class and no image."""
    extensions = tuple(e.lower() for e in dataset.get('extensions') or EXTENSIONS)
    folders = class_folders(dataset)
    if strange := [name for name in folders if _is_no_class(name)]:
        report.errors.append(
            f'{report.path}: the folder {strange[0]!r} is no class, but would be taken for one, '
            f'with label {folders.index(strange[0])}, and move the others: remove it'
        )
    left_out, hidden = [], []
    for name in folders:
        images = []
        for path in _walk(report.path / name):
            suffix = os.path.splitext(path)[1].lower()
            if path.lower().endswith(extensions):
                images.append(path)
                if any(map(_is_no_class, Path(path).relative_to(report.path / name).parts)):
                    hidden.append(path)
            elif suffix in PICTURES:
                left_out.append(path)
        report.counts[name] = len(images)
        report.files += sorted(images)
    left_out += [
        entry.path
        for entry in os.scandir(report.path)
        if entry.is_file() and entry.name.lower().endswith((*extensions, *PICTURES))
    ]
    _warn(report, left_out, 'are in no class, or end in none of ' + ', '.join(extensions))
    _warn(report, hidden, 'are in hidden folders inside of classes, and taken for images of these')
    if not report.files:
        report.errors.append(
            f'{report.path}: has no images in a folder per class; they end in one of '
            + ', '.join(extensions)
        )
    elif empty := [name for name, count in report.counts.items() if not count]:
        report.warnings.append(f'{report.path}: there are no images of {some(empty)}')


def _is_no_class(name: str) -> bool:
    return name.startswith('.') or name in NO_CLASSES


def _walk(folder: Path) -> Iterator[str]:
    """Yields the files that mmpretrain finds: hidden ones are none, in hidden folders they are."""
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if not name.startswith('.'):
                yield os.path.join(parent, name)


def _warn(report: Report, paths: list[str], problem: str) -> None:
    if paths:
        report.warnings.append(
            f'{report.path}: {len(paths)} images {problem}: the first is {paths[0]}'
        )


def _check_number(report: Report, named: Sequence[str] | None, num_classes: int | None) -> None:
    """Compares the folders with the classes that the config names, and the head with them."""
    folders = list(report.counts)
    empty = [name for name, count in report.counts.items() if not count]
    hint = f', of which {some(empty)} are empty' if empty else ''
    if named and len(named) != len(folders):
        report.errors.append(
            f'{report.path}: has {len(folders)} class folders{hint}, but metainfo.classes names '
            f'{len(named)}'
        )
    elif named and set(named) & set(folders) and list(named) != folders:
        report.errors.append(
            f'{report.path}: its class folders are, by label, {some(folders)}, but '
            f'metainfo.classes is {some(named)}: name them in the order of the folders'
        )
    elif num_classes not in (None, len(folders)):
        report.errors.append(
            f'{report.path}: has {len(folders)} class folders{hint}, but the head has num_classes='
            f'{num_classes}: set it to the number of folders, or look which are missing or too many'
        )


def _read_list(
    report: Report, folder: Path, named: Sequence[str] | None, num_classes: int | None
) -> None:
    """Reads a list with a path and a label per line."""
    try:
        lines = report.path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        report.errors.append(f'{report.path}: cannot be read: {error}')
        return
    known = num_classes or (len(named) if named else None)
    labels: Counter[int] = Counter()
    wrong = []
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal() or (known and int(label) >= known):
            wrong.append(number)
            continue
        labels[int(label)] += 1
        report.files.append(os.path.join(folder, name))
    if wrong or not lines:
        label = f'a label from 0 to {known - 1}' if known else 'a label, a number from 0 on'
        report.errors.append(
            f'{report.path}: every line takes the path of an image, a blank and {label}, and '
            + (
                f'{len(wrong)} of {len(lines)} lines have not: the first is line {wrong[0]}'
                if wrong
                else 'there are no lines'
            )
        )
    count = known or max(labels, default=-1) + 1
    names = named if named and len(named) == count else range(count)
    report.counts = {str(name): labels[index] for index, name in enumerate(names)}
    if not wrong and (empty := [name for name, n in report.counts.items() if not n]):
        report.warnings.append(f'{report.path}: there are no images of {some(empty)}')
