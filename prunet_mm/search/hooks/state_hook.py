"""What mmengine's checkpoints lack for a search to go on where it was."""

from __future__ import annotations

import math

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS

from prunet_mm.errors import CheckpointError
from prunet_mm.supernet.unused_channels import forget_removed


@HOOKS.register_module()
class SearchStateHook(Hook):
    """Adds the positions of both streams to a checkpoint, and prepares for loading one.

    mmengine builds the optimisers before it loads a checkpoint, so the pruned structure has to be
    restored, and the optimisers have to forget what is gone, before their state is loaded.
    Noise and augmentation need no state: they are functions of seed and step.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what the next session must find unchanged."""
        model = runner.model
        checkpoint['search'] = dict(
            drawn=dict(runner.train_loop.drawn),
            targets_ms=list(model.budget.targets_ms),
            table=model.table.digest,
        )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore structure and positions.

        Raises:
            CheckpointError: It is no search's checkpoint, or of another budget, table or seed.
        """
        search, model = checkpoint.get('search'), runner.model
        (name,) = (name for name, module in model.named_modules() if module is model.supernet)
        structure = checkpoint.get('state_dict', {}).get(f'{name}.structure')
        if search is None or structure is None:
            raise CheckpointError('this is no checkpoint of a search: it holds no SuperNet')
        if search['table'] != model.table.digest:
            raise CheckpointError(
                'The latency table has changed since this search began; restore the old table or '
                'start a new search.'
            )
        theirs, ours = search['targets_ms'], model.budget.targets_ms
        if len(theirs) != len(ours) or not all(map(_equal, theirs, ours)):
            raise CheckpointError(
                f'The search in this checkpoint has a budget of {_listed(theirs)}, not '
                f'{_listed(ours)}; start a new search for another budget.'
            )
        seed = checkpoint['meta'].get('seed')
        if seed != runner.seed:  # or it would go on with other images than it began with
            raise CheckpointError(
                f'The search in this checkpoint has the seed {seed}, not {runner.seed}; go on with '
                f'--seed {seed}.'
            )
        model.supernet.restore_structure(structure)
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            for wrapper in runner.optim_wrapper.values():
                forget_removed(wrapper.optimizer, model)
        runner.train_loop.drawn.update(search['drawn'])


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9)


def _listed(targets_ms) -> str:
    return ', '.join(f'{target:.4g}' for target in targets_ms) + ' ms'
