"""Two optimisers for one model: its weights and its architecture."""

from __future__ import annotations

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from prunet_mm.errors import ConfigError
from prunet_mm.supernet.unused_channels import UnusedChannels


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SearchOptimWrapperConstructor:
    """Builds an ``OptimWrapperDict`` with the entries ``weights`` and ``architecture``.

    The architecture has three parameter groups, ``widths``, ``logits`` and ``keep``. Their
    learning rates are the optimiser's, times ``paramwise_cfg`` of the same name::

        optim_wrapper = dict(
            constructor='SearchOptimWrapperConstructor',
            weights=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            architecture=dict(
                type='OptimWrapper',
                optimizer=dict(type='Adam', lr=0.01, betas=(0.5, 0.95)),
                paramwise_cfg=dict(logits=2.0, keep=2.0)))

    Args:
        optim_wrapper_cfg: The two configs.
        paramwise_cfg: Not used at this level.

    Raises:
        ConfigError: Another set of entries.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if set(optim_wrapper_cfg) != {'weights', 'architecture'}:
            raise ConfigError(
                'optim_wrapper of a search has the entries weights and architecture (and '
                f'constructor); found {", ".join(optim_wrapper_cfg)}.'
            )
        self.config = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """Build both wrappers for an :class:`ArchitectureSearch`."""
        supernet = model.supernet
        weights = self._wrapper('weights', [dict(params=model.weight_parameters())])
        UnusedChannels(supernet.prunodes, weights.optimizer)
        config = self.config['architecture']
        scales = config.get('paramwise_cfg') or {}
        groups = supernet.architecture_parameters()
        unknown = set(scales) - set(groups)
        if unknown:
            raise ConfigError(
                f'optim_wrapper.architecture.paramwise_cfg: found {", ".join(sorted(unknown))}, '
                f'expected some of {", ".join(groups)}.'
            )
        rate = config['optimizer']['lr']
        architecture = self._wrapper(
            'architecture',
            [
                dict(params=params, lr=rate * scales.get(name, 1.0), name=name)
                for name, params in groups.items()
            ],
        )
        return OptimWrapperDict(weights=weights, architecture=architecture)

    def _wrapper(self, name: str, groups: list[dict]) -> OptimWrapper:
        config = dict(self.config[name])
        config.pop('paramwise_cfg', None)
        optimizer = OPTIMIZERS.build(dict(config.pop('optimizer'), params=groups))
        return OPTIM_WRAPPERS.build(
            dict(config, type=config.get('type', 'OptimWrapper'), optimizer=optimizer)
        )
