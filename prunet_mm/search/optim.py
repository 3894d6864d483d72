"""Two optimisers for one model: its weights and its architecture."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from prunet_mm.errors import ConfigError
from prunet_mm.supernet.unused_channels import UnusedChannels

# What mmengine's constructor reads; it passes over anything else.
PARAMWISE = {
    *('bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult'),
    *('flat_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate', 'custom_keys'),
}


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

    The ``paramwise_cfg`` of the weights is that of mmengine's ``DefaultOptimWrapperConstructor``.

    Args:
        optim_wrapper_cfg: The two configs.
        paramwise_cfg: None: each entry has its own.

    Raises:
        ConfigError: Another set of entries, or a rate by which a keep coefficient, which is between
            0 and 1, would leap from one end to the other.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if set(optim_wrapper_cfg) != {'weights', 'architecture'}:
            raise ConfigError(
                'optim_wrapper of a search has the entries weights and architecture (and '
                f'constructor); found {", ".join(optim_wrapper_cfg)}.'
            )
        if paramwise_cfg is not None:
            raise ConfigError(
                'optim_wrapper.paramwise_cfg: a search has one in optim_wrapper.weights and one in '
                'optim_wrapper.architecture.'
            )
        self.config = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """Build both wrappers for an :class:`ArchitectureSearch`."""
        supernet = model.supernet
        weights = self._wrapper('weights', self._weight_groups(model))
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
        if rate * scales.get('keep', 1.0) >= 1:
            raise ConfigError(
                f'optim_wrapper.architecture: the learning rate {rate:g} times paramwise_cfg.keep '
                f'= {scales.get("keep", 1.0):g} has to be below 1, the range of a keep coefficient.'
            )
        architecture = self._wrapper(
            'architecture',
            [
                dict(params=params, lr=rate * scales.get(name, 1.0), name=name)
                for name, params in groups.items()
            ],
        )
        return OptimWrapperDict(weights=weights, architecture=architecture)

    def _weight_groups(self, model: nn.Module) -> list[dict]:
        weights = model.weight_parameters()
        paramwise = self.config['weights'].get('paramwise_cfg')
        if not paramwise:
            return [dict(params=weights)]
        if unknown := set(paramwise) - PARAMWISE:
            raise ConfigError(
                f'optim_wrapper.weights.paramwise_cfg: found {", ".join(sorted(unknown))}, '
                f'expected some of {", ".join(sorted(PARAMWISE))}.'
            )
        try:
            build = DefaultOptimWrapperConstructor(self.config['weights'], paramwise)
        except (TypeError, ValueError) as error:  # a factor for a weight_decay that is not there
            raise ConfigError(f'optim_wrapper.weights.paramwise_cfg: {error}') from error
        groups = []
        build.add_params(groups, model)
        by_weight = {id(group['params'][0]): group for group in groups}  # shared ones come often
        # The constructor leaves out what is frozen.
        return [by_weight.get(id(weight), dict(params=[weight])) for weight in weights]

    def _wrapper(self, name: str, groups: list[dict]) -> OptimWrapper:
        config = dict(self.config[name])
        config.pop('paramwise_cfg', None)
        optimizer = OPTIMIZERS.build(dict(config.pop('optimizer'), params=groups))
        return OPTIM_WRAPPERS.build(
            dict(config, type=config.get('type', 'OptimWrapper'), optimizer=optimizer)
        )
