"""Whether the loaders of a config fit its network and give batches, by the config alone."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from prunet_mm.datasets.coco_check import class_names, is_coco
from prunet_mm.datasets.dataset_config import inner_configs, type_name
from prunet_mm.datasets.folder_check import is_folders
from prunet_mm.errors import ConfigError, DataError

# Wrappers and transforms that put several images of a data set into one, by their names in mmdet.
MIXING_WRAPPER = 'MultiImageMixDataset'
MIXING_TRANSFORMS = ('CachedMosaic', 'CachedMixUp')


def _heads(model: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Yields the parts of a network that tell classes apart, with their names in the config."""
    model = model.get('architecture') or model  # that of a search
    for name, head in (('head', model.get('head')), ('bbox_head', model.get('bbox_head'))):
        yield name, head
    of_regions = (model.get('roi_head') or {}).get('bbox_head')
    for head in of_regions if isinstance(of_regions, list) else [of_regions]:
        yield 'roi_head.bbox_head', head


def num_classes(model: Mapping) -> int | None:
    """How many classes a network tells apart, None if its config does not say."""
    found = (head.get('num_classes') for _, head in _heads(model) if isinstance(head, Mapping))
    return next((number for number in found if number is not None), None)


def require_num_classes(model: Mapping, dataset: Mapping) -> None:
    """Checks that a network's heads have as many classes as a data set.

    Args:
        model: Config of a network, or of a search that holds one; others are taken to fit.
        dataset: Config of a data set that knows its classes without a look at its files.

    Raises:
        ConfigError: Names both numbers.
    """
    classes = class_names(dataset) if is_coco(dataset) else _classes_of_type(dataset)
    if classes is None:
        return
    for name, head in _heads(model):
        found = head.get('num_classes') if isinstance(head, Mapping) else None
        if found not in (None, len(classes)):
            raise ConfigError(
                f'{name}.num_classes is {found}, but the data set has {len(classes)} classes '
                '(metainfo.classes)'
            )


def _classes_of_type(dataset: Mapping) -> tuple[str, ...] | None:
    """The classes that a data set of ours always has."""
    return (getattr(_class_of(dataset), 'METAINFO', None) or {}).get('classes')


def require_batches(cfg: Mapping, split: str, images: Mapping[int, int]) -> int | None:
    """Checks that a loader gives batches, and at some time no more.

    Args:
        cfg: The config.
        split: Of its loaders, the one for this.
        images: Number of images of the data sets that were looked into, by `id` of their configs.

    Returns:
        The number of batches in an epoch, None if it is not known or has no end.

    Raises:
        ConfigError: Says why it does not.
    """
    loader = cfg[f'{split}_dataloader']
    name, sampler = f'{split}_dataloader', type_name(loader.get('sampler') or {})
    loop = cfg.get('train_cfg') or {}
    if sampler == 'InfiniteSampler' and (split != 'train' or loop.get('by_epoch')):
        raise ConfigError(
            f'{name}.sampler is an InfiniteSampler, of which '
            + ('an epoch (train_cfg.by_epoch)' if split == 'train' else 'an evaluation')
            + " never ends: take dict(type='DefaultSampler', shuffle=...)"
        )
    drops = loader.get('drop_last') or (loader.get('batch_sampler') or {}).get('drop_last')
    if drops and split != 'train':
        raise ConfigError(f'{name}.drop_last leaves images out of an evaluation: set it to False')
    if sampler == 'InfiniteSampler' or loop.get('type') == 'SearchLoop':
        return None
    count, batch = _length(loader['dataset'], images), loader.get('batch_size', 1)
    if count is None:
        return None
    if count == 0:
        raise ConfigError(f'{name}.dataset has no images that its indices and filter_cfg leave')
    processes = int(os.environ.get('WORLD_SIZE', 1))
    of_process = math.ceil(count / processes)
    if drops and of_process < batch:
        each = f' for each of {processes} processes' if processes > 1 else ''
        raise ConfigError(
            f'{name} has {count} images, which is less than a batch of {batch}{each}, and drops '
            f'what is no whole batch: set {name}.batch_size to {of_process} or less, or '
            'drop_last=False'
        )
    return of_process // batch if drops else math.ceil(of_process / batch)


def _length(dataset: Mapping, images: Mapping[int, int]) -> int | None:
    """The number of samples of a data set or a wrapper of some, None if it is not known."""
    if inner := inner_configs(dataset):
        lengths = [_length(part, images) for part in inner]
        return None if None in lengths else sum(lengths) * dataset.get('times', 1)
    count, indices = images.get(id(dataset)), dataset.get('indices')
    if count is None:
        count = _built_length(dataset)
    if count is not None and indices is not None:
        return min(count, abs(indices)) if isinstance(indices, int) else len(indices)
    return count


def _built_length(dataset: Mapping) -> int | None:
    """The length of a data set of ours, which need no files; None for others."""
    from mmengine.registry import DATASETS

    if not getattr(_class_of(dataset), '__module__', '').startswith('prunet_mm.'):
        return None
    return len(DATASETS.build(dict(dataset, pipeline=[], indices=None)))


def _class_of(dataset: Mapping) -> type | None:
    """The class of a data set that is registered for everyone, as ours are."""
    if is_coco(dataset) or is_folders(dataset):
        return None
    import prunet_mm

    prunet_mm.register_all_modules()  # which takes seconds, and may not have happened yet
    from mmengine.registry import DATASETS

    kind = dataset.get('type')
    return DATASETS.get(kind) if isinstance(kind, str) and '.' not in kind else kind


def require_separable(dataset: Mapping) -> None:
    """Checks that every sample of a data set comes from one image.

    A search divides the images between the network's weights and its architecture.

    Args:
        dataset: The config, maybe of a wrapper.

    Raises:
        DataError: Names what puts images of both parts into one.
    """
    mixing = [dataset] if type_name(dataset) == MIXING_WRAPPER else []
    mixing += [t for t in dataset.get('pipeline') or () if type_name(t) in MIXING_TRANSFORMS]
    if mixing:
        raise DataError(
            f'train_dataloader.dataset: {type_name(mixing[0])} puts several images into one, while '
            'a search divides them between weights and architecture: leave it out'
        )
    for part in inner_configs(dataset):
        require_separable(part)


def collate_function(config: Mapping, loader: str) -> Callable[[list], Any]:
    """What makes a batch of samples: that of a loader's ``collate_fn``, or mmengine's own.

    Args:
        config: The loader's.
        loader: What errors call it.

    Raises:
        ConfigError: There is no such function.
    """
    from mmengine.registry import FUNCTIONS

    settings = dict(config.get('collate_fn') or dict(type='pseudo_collate'))
    name = settings.pop('type', None)
    function = name if callable(name) else FUNCTIONS.get(name) if name else None
    if function is None:
        raise ConfigError(
            f'{loader}.collate_fn: there is no {name}; choose one of '
            f'{", ".join(sorted(FUNCTIONS.module_dict))}'
        )
    return partial(function, **settings) if settings else function
