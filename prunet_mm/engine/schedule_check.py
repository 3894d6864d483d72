"""Whether the schedules of a config fit the length of its training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prunet_mm.errors import ConfigError


class Length(NamedTuple):
    """How long a training or a schedule is: a number of epochs or of iterations."""

    count: int
    unit: str
    setting: str


def require_schedule(cfg: Mapping, batches: int | None = None) -> None:
    """Refuses schedules that mmengine cannot build or never steps, and warns of what ends too late.

    Args:
        cfg: The config of a training or a search.
        batches: In an epoch; where it is None, epochs and iterations cannot be compared.

    Raises:
        ConfigError: Names the schedule, or the length of the training that is none.
    """
    lengths = _lengths(cfg.get('train_cfg') or {}, batches)
    if not lengths:
        return
    for name, scheduler in schedulers(cfg.get('param_scheduler') or []):
        _check(f'{name} ({scheduler.get("type")})', scheduler, lengths)
    _check_validation(cfg, lengths)


def _lengths(loop: Mapping, batches: int | None) -> dict[str, Length]:
    """The length of the training in each unit in which it is known; none if it says nothing."""
    found = {}
    for key, unit in (('max_epochs', 'epoch'), ('max_iters', 'iteration')):
        count = loop.get(key)
        if count is None:
            continue
        if type(count) not in (int, float) or count < 1 or count % 1:
            raise ConfigError(
                f'train_cfg.{key} is {count!r}, but has to be a whole number from 1 on'
            )
        found[unit] = Length(count, unit, f'train_cfg.{key}={count}')
    if 'epoch' in found and batches:
        count = found['epoch'].count * batches
        setting = f'{found["epoch"].setting} of {batches} iterations'
        found['iteration'] = Length(count, 'iteration', setting)
    return found


def schedulers(config: Mapping | list, name: str = 'param_scheduler') -> Iterator:
    """Yields every schedule with its place in the config: one, several, or those of a search."""
    if isinstance(config, Mapping) and 'type' in config:
        yield name, config
        return
    if not isinstance(config, (Mapping, list, tuple)):
        raise ConfigError(
            f'{name} is {config!r}: expected a schedule, which is a dict with a type, or a list of '
            'schedules'
        )
    for key, part in config.items() if isinstance(config, Mapping) else enumerate(config):
        yield from schedulers(part, f'{name}.{key}')


def _check(name: str, scheduler: Mapping, lengths: Mapping[str, Length]) -> None:
    by_epoch, converted = scheduler.get('by_epoch', True), scheduler.get('convert_to_iter_based')
    if by_epoch and not converted and 'epoch' not in lengths:
        raise ConfigError(
            f'{name} counts epochs, but the training counts iterations '
            f'({lengths["iteration"].setting}), so it would never step: set by_epoch=False in it, '
            'and count iterations'
        )
    training = lengths.get('epoch' if by_epoch else 'iteration')
    if training is None:
        return
    begin, end = scheduler.get('begin', 0), scheduler.get('end', training.count)
    if begin >= end:
        of_training = (
            '' if 'end' in scheduler else f', where the training does ({training.setting})'
        )
        raise ConfigError(
            f'{name} begins at {training.unit} {begin}, but ends at {end}{of_training}: train '
            'longer, or shorten the warm-up before it'
        )
    if end > training.count:
        warnings.warn(
            f'{name} ends at {training.unit} {end}, after the training ({training.setting}), so '
            'the learning rate never gets to where it leads',
            stacklevel=1,  # so that a second check of the config does not say it again
        )


def _check_validation(cfg: Mapping, lengths: Mapping[str, Length]) -> None:
    interval = cfg['train_cfg'].get('val_interval', 1)
    training = lengths.get('epoch') or lengths['iteration']
    if cfg.get('val_dataloader') and type(interval) is int and interval > training.count:
        warnings.warn(
            f'train_cfg.val_interval={interval} is longer than the training ({training.setting}), '
            'so it is not validated',
            stacklevel=1,  # so that a second check of the config does not say it again
        )
