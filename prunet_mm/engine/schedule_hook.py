"""A resumed run follows the rates and schedules of its config, and says where they changed.

mmengine takes them from the checkpoint without a word, whatever the config says by now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.runner import Runner

from prunet_mm.errors import CheckpointError

# What moves while a scheduler runs; all else of it is how it was built.
_POSITION = {'last_step', '_global_step', '_last_value', 'optimizer', 'verbose'}


class ChangedScheduleHook(Hook):
    """Lets settings of optimizers and schedulers that changed since a checkpoint take effect.

    Where nothing changed, nothing is touched. Else the schedules of the config are followed from
    the first step to the one that is resumed, as if they had been in place all the time, and the
    run goes on with the values that this gives. What the optimizer remembers of gradients stays.
    The log tells what changed, and both rates.

    Schedulers that go by a metric cannot be followed like that: with one of them all settings come
    from the checkpoint, and the log says so.
    """

    priority = 'LOW'  # after what restores the parameters that the optimizers hold

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Puts the config's settings into the checkpoint, whose optimizers are loaded next.

        Raises:
            CheckpointError: An optimizer is of another kind, or groups its parameters otherwise.
        """
        if not runner._resume or 'optimizer' not in checkpoint:
            return
        several = isinstance(runner.optim_wrapper, OptimWrapperDict)
        wrappers = dict(runner.optim_wrapper.items()) if several else {'': runner.optim_wrapper}
        for name, wrapper in wrappers.items():
            saved, built, states = (
                (part or {}).get(name) or [] if several else part or []
                for part in (
                    checkpoint['optimizer'],
                    runner.param_schedulers,
                    checkpoint.get('param_schedulers'),
                )
            )
            _require_same_kind(f'optim_wrapper.{name}'.rstrip('.'), wrapper, saved)
            changed = [*_settings(name, wrapper, saved), *_schedules(name, built, states)]
            if not changed:
                continue
            rate = saved['param_groups'][0].get('lr')
            if any(getattr(scheduler, 'need_val_args', False) for scheduler in built):
                runner.logger.warning(
                    f'{"; ".join(changed)}: this is not followed, since one of the schedulers goes '
                    'by a metric; all rates and schedules come from the checkpoint'
                )
                continue
            _follow(wrapper, built, **{k: checkpoint['meta'][k] for k in ('epoch', 'iter')})
            for group, settings in zip(_groups(saved), wrapper.param_groups, strict=True):
                group.update((k, v) for k, v in settings.items() if k != 'params')
            states[:] = [scheduler.state_dict() for scheduler in built]
            runner.logger.warning(
                f'{"; ".join(changed)}: the run goes on as if this had been so from its beginning, '
                f'with a learning rate of {wrapper.param_groups[0]["lr"]:.4g} instead of {rate:.4g}'
            )

    def before_train(self, runner: Runner) -> None:
        """Says so where a checkpoint is of a run that was at least as long as the config's."""
        if runner._resume and runner.iter >= runner.max_iters > 0:
            runner.logger.warning(
                f'the checkpoint is of step {runner.iter}, and the config has {runner.max_iters}: '
                'nothing is left to be trained'
            )


def _groups(saved: dict) -> list[dict]:
    """The parameter groups in an optimizer's state, as `OptimWrapper.param_groups` has them."""
    base = saved.get('base_param_settings')
    return [*saved['param_groups'], *([base] if base is not None else [])]


def _require_same_kind(name: str, wrapper: OptimWrapper, saved: dict) -> None:
    groups, before = wrapper.param_groups, _groups(saved)
    sizes, sizes_before = ([len(group['params']) for group in part] for part in (groups, before))
    if sizes != sizes_before:
        raise CheckpointError(
            f'{name} divides the parameters into {len(wrapper.optimizer.param_groups)} groups, and '
            f'the checkpoint into {len(saved["param_groups"])} or others: take the paramwise_cfg '
            'that it began with'
        )
    # Versions of torch add settings; another optimizer lacks some, too.
    new, gone = (set(a[0]) - set(b[0]) for a, b in ((groups, before), (before, groups)))
    gone = {key for key in gone if not key.startswith('initial_')}
    new = {key for key in new if not key.startswith('initial_')}
    if new and gone:
        raise CheckpointError(
            f'{name}.optimizer is another than in the checkpoint: it has {", ".join(sorted(new))} '
            f'instead of {", ".join(sorted(gone))}: resume with the one that it began with, or '
            'start a new training from its weights by load_from'
        )


def _settings(name: str, wrapper: OptimWrapper, saved: dict) -> Iterator[str]:
    """Yields what changed in the settings of an optimizer."""
    where, seen = f'optim_wrapper.{name}'.rstrip('.'), set()
    for settings, before in zip(wrapper.param_groups, _groups(saved), strict=True):
        for key in sorted(settings.keys() - {'params'}):
            label = key.removeprefix('initial_')
            # A value that a scheduler moves is compared where it started.
            moved = f'initial_{key}' in settings
            old, new = before.get(key, settings[key]), settings[key]
            if not moved and label not in seen and _plain(old) != _plain(new):
                seen.add(label)
                yield f'{where}.optimizer.{label} was {old} and is {new}'


def _schedules(name: str, built: Sequence[_ParamScheduler], states: list[dict]) -> Iterator[str]:
    """Yields what changed in the schedulers of an optimizer, other than where they start."""
    where = f'param_scheduler.{name}'.rstrip('.')
    if len(built) != len(states):
        yield f'{where} had {len(states)} schedulers and has {len(built)}'
        return
    for index, (scheduler, before) in enumerate(zip(built, states, strict=True)):
        own = vars(scheduler)
        for key in sorted((own.keys() | before.keys()) - _POSITION - {'base_values'}):
            old, new = before.get(key), own.get(key)
            if _plain(old) != _plain(new):
                yield f'{where}.{index}.{key} was {old} and is {new}'


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _follow(
    wrapper: OptimWrapper, schedulers: Sequence[_ParamScheduler], epoch: int, iter: int
) -> None:
    """Steps new schedulers as often as a run of so many epochs and iterations has."""
    wrapper._global_step = 0  # or they would warn that nothing was optimised before
    for step in range(1, max(epoch, iter) + 1):
        ends_epoch = step * epoch // max(epoch, iter) > (step - 1) * epoch // max(epoch, iter)
        for scheduler in schedulers:
            if ends_epoch if scheduler.by_epoch else step <= iter:
                scheduler.step()
