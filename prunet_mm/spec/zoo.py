"""Networks that come with the package, each a JSON file in ``zoo/``."""

from __future__ import annotations

from pathlib import Path

from prunet_mm.errors import SpecError
from prunet_mm.spec.network import NetworkSpec

_FOLDER = Path(__file__).with_name('zoo')


def zoo_names() -> list[str]:
    """The networks that :func:`load_zoo` knows, sorted."""
    return sorted(path.stem for path in _FOLDER.glob('*.json'))


def load_zoo(name: str) -> NetworkSpec:
    """A network of the zoo.

    Raises:
        SpecError: There is no network of this name; lists those there are.
    """
    if name not in zoo_names():
        raise SpecError(f'no network "{name}" in the zoo, known are {", ".join(zoo_names())}')
    return NetworkSpec.load(_FOLDER / f'{name}.json')
