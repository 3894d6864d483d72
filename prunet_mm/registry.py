"""Registration that makes one model class resolve in every scope it is used from."""

from __future__ import annotations

from importlib import import_module

from mmpretrain.registry import MODELS
from torch import nn


def _model_registries() -> list:
    """mmpretrain's registry and, where mmdet is installed, mmdet's.

    mmengine looks a bare name up in the default scope and its parents, never in a sibling, so a
    class has to be in both siblings for ``PRUNet``, ``mmpretrain.PRUNet`` and ``mmdet.PRUNet`` to
    resolve under either default scope.
    """
    try:
        from mmdet.registry import MODELS as MMDET_MODELS
    except ModuleNotFoundError:
        return [MODELS]
    return [MODELS, MMDET_MODELS]


def register_model(cls: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: registers a model under its class name for mmpretrain and mmdet."""
    for registry in _model_registries():
        registry.register_module(module=cls)
    return cls


def register_on_lookup(module: str, scope: str = 'mmpretrain', kind: str = 'MODELS') -> None:
    """Has a registry of a package import a module when it imports the package's own classes.

    For classes derived from one of those: importing it loads every model there is and with them
    mmcv's compiled ops. The registry does so when the first class is looked up. Without the package
    nothing happens.

    Args:
        module: Full name of the module, which registers its classes as it is imported.
        scope: The package, ``'mmpretrain'`` or ``'mmdet'``.
        kind: The name of its registry.
    """
    try:
        registry = getattr(import_module(f'{scope}.registry'), kind)
    except ModuleNotFoundError:
        return
    if registry._imported:
        import_module(module)
    else:
        registry._locations.append(module)
