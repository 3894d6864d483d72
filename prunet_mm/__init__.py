"""Differentiable, latency-aware architecture search with tiered pruning, on OpenMMLab.

``import prunet_mm`` is cheap: it checks the installed versions and imports no torch. Where mmengine
is already loaded, as it is when a config says ``custom_imports=dict(imports=['prunet_mm'])``, it
also registers every model, hook, loop and data set of this package.
"""

import importlib
import sys

from prunet_mm.dependencies import check_dependencies
from prunet_mm.version import __version__

__all__ = ['__version__', 'register_all_modules']

# Importing these fills mmengine's registries.
_REGISTERING_MODULES = (
    'prunet_mm.models',
    'prunet_mm.detection',
    'prunet_mm.datasets.digits',
    'prunet_mm.datasets.gray',
    'prunet_mm.engine.bf16_optim_wrapper',
    'prunet_mm.engine.checkpoint_hook',
    'prunet_mm.engine.loss_hook',
    'prunet_mm.engine.rmsprop_tf',
    'prunet_mm.engine.staircase_lr',
    'prunet_mm.supernet',
    'prunet_mm.search.hooks',
    'prunet_mm.search.loop',
    'prunet_mm.search.optim',
    'prunet_mm.search.runner',
)


def register_all_modules() -> None:
    """Make the names of this package known to the registries of mmengine, mmpretrain and mmdet.

    Call it when ``prunet_mm`` was imported before mmengine; otherwise it has already happened. A
    second call does nothing.

    Raises:
        ImportError: If mmengine, mmcv or mmpretrain is not installed.
    """
    try:
        for module in _REGISTERING_MODULES:
            importlib.import_module(module)
        name_configs()
    except ModuleNotFoundError as error:
        if error.name not in ('torch', 'mmengine', 'mmcv', 'mmpretrain'):
            raise
        raise ImportError(
            f'the models of prunet_mm need {error.name}, which is not installed: '
            'run "pip install \'prunet_mm[mm]\'", or "pip install -e \'.[mm]\'" in a checkout'
        ) from None


def name_configs() -> None:
    """Let mmengine find this package's configs as ``prunet_mm::folder/name.py``."""
    from mmengine.config.utils import MODULE2PACKAGE  # a list of the packages that it knows

    MODULE2PACKAGE['prunet_mm'] = 'prunet_mm'


check_dependencies()
if 'mmengine' in sys.modules:
    register_all_modules()
