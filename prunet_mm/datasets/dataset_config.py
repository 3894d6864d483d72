"""Reading configs of data sets: what they are of, and what is inside of wrappers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def type_name(config: Mapping) -> str:
    """The name of the class that a config is for, without scope or module."""
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
