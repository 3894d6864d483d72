"""What mmengine's checkpoints lack for a search to go on where it was."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS

from prunet_mm.errors import CheckpointError
from prunet_mm.supernet.unused_channels import forget_removed


def identity(runner) -> dict[str, Any]:
    """What the network that comes out is of, by the name of the setting that decides it."""
    data, model = runner.train_loop.dataloader, runner.model
    return {
        '--seed': runner.seed,
        'model.latency.table': model.table.digest,
        'latency budget in ms': float(f'{model.budget.budget_ms:.9g}'),
        'space': _digest(json.dumps(model.supernet.space.to_dict(), sort_keys=True)),
        'number of training images': len(data.dataset),
        'train_cfg.architecture_fraction, in images': len(data.indices['architecture']),
        # by labels and seed, so that no image changes sides
        'division of the training images': _digest(data.indices['architecture']),
    }


def course(runner) -> dict[str, Any]:
    """What may not change half-way, either, likewise.

    Learning rates, their schedules and thresholds are not in it: where they change, the search goes
    on with the new ones (`prunet_mm.engine.schedule_hook`).
    """
    loop, model, wrappers = runner.train_loop, runner.model, runner.cfg.optim_wrapper
    batch_size = loop.dataloader.batch_size
    return {
        'number of processes': get_world_size(),
        '--latency-targets-ms': [float(f'{ms:.9g}') for ms in reversed(model.budget.targets_ms)],
        'backbone.sampling': model.supernet.sampling,
        'train_cfg.max_iters': loop.max_iters,
        'train_cfg.warmup_iters': loop.warmup_iters,
        'train_cfg.architecture_interval': loop.interval,
        'train_cfg.networks': loop.networks,
        'train_cfg.paths': loop.paths,
        'train_cfg.exploration': loop.exploration,
        'train_dataloader.batch_size': batch_size['weights'],
        'train_cfg.architecture_batch_size': batch_size['architecture'],
        **{
            f'optim_wrapper.{part}.accumulative_counts': wrappers[part].get(
                'accumulative_counts', 1
            )
            for part in batch_size
        },
    }


def _digest(content: str | np.ndarray) -> str:
    """Stands for what is too long to be kept and shown."""
    data = content.encode() if isinstance(content, str) else content.astype('<i8').tobytes()
    return hashlib.sha256(data).hexdigest()[:12]


@HOOKS.register_module()
class SearchStateHook(Hook):
    """Adds the positions of both streams to a checkpoint, and prepares for loading one.

    What was noted before the first architecture step waits for the history's first row.

    mmengine builds the optimisers before it loads a checkpoint, so the pruned structure has to be
    restored, and the optimisers have to forget what is gone, before their state is loaded.
    Noise and augmentation need no state: they are functions of seed and step.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what the next session must find unchanged."""
        checkpoint['search'] = dict(
            drawn=dict(runner.train_loop.drawn),
            events=list(runner.train_loop.events),  # which no row of the history has yet
            walking=runner.model.supernet.walking,  # no hook sets it where a network is derived
            identity=identity(runner),
            course=course(runner),
        )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore structure and positions.

        Raises:
            CheckpointError: It is no search's checkpoint, or of a search that means something else.
        """
        search, model = checkpoint.get('search'), runner.model
        (name,) = (name for name, module in model.named_modules() if module is model.supernet)
        structure = checkpoint.get('state_dict', {}).get(f'{name}.structure')
        if search is None or structure is None:
            raise CheckpointError('this is no checkpoint of a search: it holds no SuperNet')
        _require_same(search.get('identity'), identity(runner))
        if runner._resume:  # and not only derived from
            _require_same(search.get('course'), course(runner))
        model.supernet.restore_structure(structure)
        model.supernet.walking = search['walking']
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            for wrapper in runner.optim_wrapper.values():
                forget_removed(wrapper.optimizer, model)
        runner.train_loop.drawn.update(search['drawn'])
        runner.train_loop.events = search.get('events', [])


def _require_same(began: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Raises CheckpointError that names the first of the settings that changed, and the others."""
    if began is None:
        raise CheckpointError(
            'an earlier version of prunet_mm wrote it, so go on with that version'
        )
    changed = [name for name in now if began.get(name) != now[name]]
    if changed:
        first, *others = changed
        values = f', {began.get(first)} and not {now[first]}'
        more = f', and another {", another ".join(others)}' if others else ''
        raise CheckpointError(
            f'this search began with another {first}'
            f'{"" if isinstance(now[first], str) else values}{more}: go on as it began, or start a '
            'new one in another --work-dir'
        )
