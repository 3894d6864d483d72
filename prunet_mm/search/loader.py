"""The settings of a data loader that a search honours, and the refusal of those that it cannot."""

from __future__ import annotations

from collections.abc import Mapping

from prunet_mm.errors import ConfigError

# A search has streams of its own. How fast a loader is does not change what comes out of it.
_READ = {'dataset', 'batch_size', 'num_workers', 'collate_fn', 'sampler', 'drop_last'}
_SPEED = {'pin_memory', 'persistent_workers', 'prefetch_factor'}
# What its streams do: every image once in random order, then again, shared between the processes.
_SAMPLERS = {'DefaultSampler', 'InfiniteSampler'}


def require_loader(config: Mapping) -> None:
    """Refuses settings of ``train_dataloader`` that a search would pass over.

    Raises:
        ConfigError: Names the setting and what to do.
    """
    if config.get('batch_size') is None:
        raise ConfigError(
            'train_dataloader.batch_size is missing: say how many images are in a batch'
        )
    for name in config:
        # None is what a config says to be rid of what its base says.
        if name not in _READ | _SPEED and config[name] is not None:
            raise ConfigError(
                f'train_dataloader.{name}: a search has no such setting, only '
                f'{", ".join(sorted(_READ))}; leave it out'
            )
    sampler = config.get('sampler') or {}
    others = {k: v for k, v in sampler.items() if k not in ('type', 'shuffle', 'round_up')}
    known = str(sampler.get('type', 'DefaultSampler')).rpartition('.')[2] in _SAMPLERS
    if not known or others or not sampler.get('shuffle', True):
        raise ConfigError(
            f'train_dataloader.sampler is {dict(sampler)}: a search draws its images in a random '
            "order of its own, as dict(type='DefaultSampler', shuffle=True) does"
        )
    if config.get('drop_last') is False:
        raise ConfigError(
            'train_dataloader.drop_last is False: in a search all batches are full, so set it to '
            'True or leave it out'
        )
