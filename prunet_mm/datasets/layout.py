"""Data that are not where a config expects them, or not what it expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prunet_mm.datasets.coco_check import (
    annotation_file,
    class_names,
    is_coco,
    require_annotations,
)
from prunet_mm.errors import ConfigError, DataError

EMBEDDED = "scikit-learn's digits need no files: see configs/search/prunet_digits.py"
EMBEDDED_SCENES = (
    "python tools/dataset_converters/digits_to_coco.py composes scenes of scikit-learn's digits, "
    'on which python tools/train.py configs/det/retinanet_prunet_digits.py trains'
)


def require_data(cfg: Mapping, *splits: str) -> None:
    """Checks that the files which a config's data sets and evaluators name are there and fit.

    Args:
        cfg: The config. Its ``data_layout`` says what is expected, in words.
        *splits: ``'train'``, ``'val'``, ``'test'``: those that are going to be used; one that the
            config does not have needs nothing.

    Raises:
        DataError: A folder is missing or empty, an annotation file is missing or, in COCO's format,
            does not fit (`require_annotations`), or it is not the one that is evaluated.
        ConfigError: The detector tells another number of classes apart than the data set.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in unwrapped(loader['dataset']) if loader else ():
            require_files(dataset, cfg.get('data_layout'))
            if is_coco(dataset):
                require_num_classes(cfg.get('model') or {}, dataset)
                require_same_file(dataset, split, cfg.get(f'{split}_evaluator'))
                require_annotations(dataset)


def unwrapped(dataset: Mapping) -> Iterator[Mapping]:
    """Yields the configs of the data sets inside of wrappers, such as `ConcatDataset`."""
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        yield dataset
    for config in inner if isinstance(inner, list) else [inner] * (inner is not None):
        yield from unwrapped(config)


def require_files(dataset: Mapping, layout: str | None = None) -> None:
    """Checks that the folders and the annotation file which a data set's config names are there.

    Args:
        dataset: The config; ``data_root``, ``data_prefix`` and ``ann_file`` are looked at where it
            has them.
        layout: What is expected, in words.

    Raises:
        DataError: A folder is missing or empty, or the file is missing.
    """
    root = dataset.get('data_root')
    prefix = dataset.get('data_prefix') or ''
    parts = list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
    folders = [Path(root), *(Path(root, part) for part in parts)] if root else []
    for folder in folders:
        wrong = 'no folder' if not folder.is_dir() else '' if any(folder.iterdir()) else 'empty'
        if wrong:
            raise _missing(f'images are missing: {folder} is {wrong}', dataset, layout)
    if dataset.get('ann_file') and not annotation_file(dataset).is_file():
        problem = f'annotations are missing: {annotation_file(dataset)} is no file'
        raise _missing(problem, dataset, layout)


def require_same_file(dataset: Mapping, split: str, evaluators: list | Mapping | None) -> None:
    """Checks that predictions are compared with the annotations of the images they are made for.

    Args:
        dataset: Config of a `CocoDataset`.
        split: What it is for: ``'val'``, for instance.
        evaluators: The config or configs of what evaluates it.

    Raises:
        DataError: An evaluator's ``ann_file`` is another.
    """
    read = annotation_file(dataset)
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators or {}]:
        evaluated = evaluator.get('ann_file')
        if evaluated and Path(evaluated).resolve() != read.resolve():
            raise DataError(
                f'{split}_evaluator.ann_file is {evaluated}, but {split}_dataloader reads {read}: '
                'name the same file'
            )


def require_num_classes(model: Mapping, dataset: Mapping) -> None:
    """Checks that a detector's head has as many classes as a data set.

    Args:
        model: Config of a detector, or of a search that holds one; others are taken to fit.
        dataset: Config of a `CocoDataset`.

    Raises:
        ConfigError: Names both numbers.
    """
    head = (model.get('architecture') or model).get('bbox_head')
    found = head.get('num_classes') if isinstance(head, Mapping) else None
    expected = len(class_names(dataset))
    if found not in (None, expected):
        raise ConfigError(
            f'bbox_head.num_classes is {found}, but the data set has {expected} classes '
            '(metainfo.classes)'
        )


def _missing(problem: str, dataset: Mapping, layout: str | None) -> DataError:
    expected = f'; expected are {layout}' if layout else ''
    example = EMBEDDED_SCENES if is_coco(dataset) else EMBEDDED
    return DataError(f'The {problem}{expected}; {example}.')
