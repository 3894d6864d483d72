"""Which versions of other packages fit, checked from their metadata without importing them.

The OpenMMLab packages exist twice: the originals (``mmcv``) and maintained forks (``onedl-mmcv``).
Both install the same import name, so either will do, each in its own range of versions. The ranges
of what our extras install equal those in ``requirements/``.
"""

import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

# import name -> {distribution that provides it: versions that fit}
DEPENDENCIES = {
    # Before 2.6, torch's `weights_only` loading could itself be made to run code (CVE-2025-32434).
    'torch': {'torch': '>=2.6,<3'},
    'torchvision': {'torchvision': '>=0.21,<1'},
    'numpy': {'numpy': '>=1.24,<3'},
    'pydantic': {'pydantic': '>=2.7,<3'},
    'mmengine': {
        'onedl-mmengine': '>=0.10.8,<0.11',
        'mmengine': '>=0.10.4,<0.11',
        'mmengine-lite': '>=0.10.4,<0.11',
    },
    'mmcv': {'onedl-mmcv': '>=2.3,<2.4', 'mmcv': '>=2.1,<2.3', 'mmcv-lite': '>=2.1,<2.3'},
    'mmpretrain': {'onedl-mmpretrain': '>=1.3,<1.4', 'mmpretrain': '>=1.2,<1.3'},
    'mmdet': {'onedl-mmdetection': '>=3.5,<3.6', 'mmdet': '>=3.3,<3.4'},
}


class Installed(NamedTuple):
    """One installed distribution, the version found and the versions that fit."""

    distribution: str
    found: str
    wanted: str

    @property
    def fits(self) -> bool:
        """Whether the version found lies in the range; pre-releases count, local labels do not."""
        try:
            return SpecifierSet(self.wanted).contains(self.found, prereleases=True)
        except InvalidVersion:
            return False


def installed(name: str) -> Iterator[Installed]:
    """Yield the installed distributions that provide the import name ``name``, none if absent."""
    for distribution, wanted in DEPENDENCIES[name].items():
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        yield Installed(distribution, found or 'unknown', wanted)


def check_dependencies() -> None:
    """Refuse versions that do not fit; what is not installed is no error here.

    Raises:
        ImportError: In one sentence, which distribution was found in which version, which versions
            fit and the command that installs one.
    """
    for name in DEPENDENCIES:
        owners = list(installed(name))
        for owner in owners:
            if not owner.fits:
                requirement = f'{owner.distribution}{owner.wanted}'
                raise ImportError(
                    f'prunet_mm needs {requirement}, but {owner.distribution} {owner.found} is '
                    f'installed: run "pip install \'{requirement}\'"'
                )
        if len(owners) > 1:
            both = ' and '.join(f'{owner.distribution} {owner.found}' for owner in owners)
            warnings.warn(
                f'{both} are installed together, but both own the import name {name!r} and have '
                'overwritten parts of each other: uninstall both, then install one of them again',
                stacklevel=3,
            )
