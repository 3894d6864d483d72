"""Reading configs of data sets: what they are of, and what is inside of wrappers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prunet_mm.errors import ConfigError


def require_configs(dataset: Any, name: str) -> None:
    """Refuses what is no config of a data set, or holds a transform that is none.

    Args:
        dataset: The config, maybe of a wrapper.
        name: Where it is.

    Raises:
        ConfigError: Names the place and what was found there.
    """
    if not isinstance(dataset, Mapping):
        raise ConfigError(
            f'{name} is {dataset!r}: expected a data set, which is a dict with a type'
        )
    pipeline = dataset.get('pipeline') or ()
    if not isinstance(pipeline, (list, tuple)):
        raise ConfigError(f'{name}.pipeline is {pipeline!r}: expected a list of transforms')
    for place, transform in enumerate(pipeline):
        if not (isinstance(transform, Mapping) or callable(transform)):
            raise ConfigError(
                f'{name}.pipeline.{place} is {transform!r}: expected a transform, which is a dict '
                'with a type'
            )
    for inner in inner_configs(dataset):
        require_configs(inner, f'a data set in {name}')


def type_name(config: Mapping | Callable) -> str:
    """The name of the class that a config is for, or a transform is of, without scope or module."""
    if not isinstance(config, Mapping):
        return type(config).__name__
    kind = config.get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def inner_configs(dataset: Mapping) -> list[Mapping]:
    """The configs of the data sets right inside of a wrapper, none if it is no wrapper."""
    inner = dataset.get('datasets') or dataset.get('dataset') or []
    return list(inner) if isinstance(inner, (list, tuple)) else [inner]


def unwrapped(dataset: Mapping) -> Iterator[Mapping]:
    """Yields the configs of the data sets inside of wrappers, such as `ConcatDataset`."""
    inner = inner_configs(dataset)
    if not inner:
        yield dataset
    for config in inner:
        yield from unwrapped(config)
