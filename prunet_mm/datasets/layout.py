"""Data that are not where a config expects them, or not what it expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prunet_mm.datasets.coco_check import (
    annotation_file,
    check_annotations,
    class_names,
    is_coco,
)
from prunet_mm.datasets.dataset_config import require_configs, unwrapped
from prunet_mm.datasets.folder_check import (
    check_folders,
    class_folders,
    compare_folders,
    image_folder,
    is_folders,
    named_classes,
)
from prunet_mm.datasets.image_check import SAMPLE, Depth
from prunet_mm.datasets.loader_check import (
    num_classes,
    require_batches,
    require_num_classes,
    require_separable,
)
from prunet_mm.datasets.report import Report, some
from prunet_mm.engine.schedule_check import require_schedule
from prunet_mm.errors import DataError

EMBEDDED = "scikit-learn's digits need no files: see configs/search/prunet_digits.py"
EMBEDDED_SCENES = (
    "python tools/dataset_converters/digits_to_coco.py composes scenes of scikit-learn's digits, "
    'on which python tools/train.py configs/det/retinanet_prunet_digits.py trains'
)


def require_data(cfg: Mapping, *splits: str) -> None:
    """Checks that the files which a config's data sets and evaluators name are there and fit.

    Warns of what is odd in them. Of the images some are opened.

    Args:
        cfg: The config. Its ``data_layout`` says what is expected, in words.
        *splits: ``'train'``, ``'val'``, ``'test'``: those that are going to be used; one that the
            config does not have needs nothing.

    Raises:
        DataError: A folder is missing or empty, an annotation file is missing or is not the one
            that is evaluated, or what is in them does not fit.
        ConfigError: The network tells another number of classes apart than the data set, or a
            loader has no batch.
    """
    for _, report in check_data(cfg, splits, SAMPLE):
        report.require()


def check_data(cfg: Mapping, splits: Sequence[str], depth: Depth) -> Iterator[tuple[str, Report]]:
    """Looks for everything that is wrong with the data sets of a config.

    Args:
        cfg: The config.
        splits: As for `require_data`, which takes the same arguments and raises the same errors
            for what is found before a data set is looked into.
        depth: How many of the images to open.

    Yields:
        The split and what was found, for each data set of a kind that can be looked into.
    """
    trained: list[str] = []
    evaluated: list[Mapping] = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        images: dict[int, int] = {}
        require_configs(loader['dataset'], f'{split}_dataloader.dataset')
        for dataset in unwrapped(loader['dataset']):
            require_files(dataset, cfg.get('data_layout'))
            require_num_classes(cfg.get('model') or {}, dataset)
            if is_coco(dataset):
                require_same_file(dataset, split, cfg.get(f'{split}_evaluator'))
            if dataset in evaluated:  # validation and test are often the same
                continue
            report = _check(cfg, split, dataset, depth)
            if report is None:
                continue
            images[id(dataset)] = report.used
            if split == 'train':
                trained += report.files
            else:
                evaluated.append(dataset)
                report.warnings.extend(_shared(report, trained, split))
            yield split, report
        batches = require_batches(cfg, split, images)
        if split == 'train':
            require_schedule(cfg, batches)
        if split == 'train' and (cfg.get('train_cfg') or {}).get('type') == 'SearchLoop':
            require_separable(loader['dataset'])


def _check(cfg: Mapping, split: str, dataset: Mapping, depth: Depth) -> Report | None:
    if is_coco(dataset):
        # What is validated has to be found, also where its pipeline is one of trainings.
        as_used = dataset if split == 'train' else dict(dataset, test_mode=True)
        report = check_annotations(as_used, depth)
    elif is_folders(dataset):
        report = check_folders(dataset, num_classes(cfg.get('model') or {}), depth)
    else:
        return None
    report.errors.extend(_unlike_training(cfg, split, dataset))
    return report


def _unlike_training(cfg: Mapping, split: str, dataset: Mapping) -> Iterator[str]:
    """Compares classes with those for training, and class folders where these are on this machine.

    Labels are numbers, which have to mean the same in all data sets, also in those of a training.
    """
    loader = cfg.get('train_dataloader')
    for trained in unwrapped(loader['dataset']) if loader else ():
        names, others = _classes(dataset), _classes(trained)
        if names and others and list(names) != list(others):
            yield (
                f'metainfo.classes of a data set for {split} is {some(names)}, of one for train '
                f'{some(others)}: labels are numbers in this order, so they would mean other '
                'classes; write the same in both'
            )
            return
        folders = [is_folders(one) and not one.get('ann_file') for one in (dataset, trained)]
        if all(folders) and image_folder(trained).is_dir() and class_folders(trained):
            yield from compare_folders(dataset, split, trained, 'train')


def _classes(dataset: Mapping) -> Sequence[str] | None:
    return class_names(dataset) if is_coco(dataset) else named_classes(dataset)


def _shared(report: Report, trained: list[str], split: str) -> Iterator[str]:
    shared = sorted(set(report.files).intersection(trained))
    if shared:
        yield (
            f'{report.path}: {len(shared)} of {len(report.files)} images for {split} are trained '
            f'on as well, so its score says little: the first is {shared[0]}'
        )


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


def _missing(problem: str, dataset: Mapping, layout: str | None) -> DataError:
    expected = f'; expected are {layout}' if layout else ''
    example = EMBEDDED_SCENES if is_coco(dataset) else EMBEDDED
    return DataError(f'The {problem}{expected}; {example}.')
