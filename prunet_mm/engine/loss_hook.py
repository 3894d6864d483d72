"""Stops a run whose loss is not a number, before a checkpoint can hold what follows from it."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.errors import PrunetError


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Checks the loss after every step and stops at the first that is NaN or infinite.

    Costs no extra synchronisation: mmengine's `RuntimeInfoHook` reads the loss of every step too.
    Runs before the hooks that save, so the last checkpoint is from a step with a finite loss.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Raises PrunetError that names the step and the term of the loss."""
        losses = {
            name: torch.as_tensor(value).detach()
            for name, value in outputs.items()
            if 'loss' in name
        }
        bad = [name for name, value in losses.items() if not value.isfinite().all()]
        if not bad:
            return
        # 'loss' is the sum; the term that spoiled it says more.
        term = next((name for name in bad if name != 'loss'), 'loss')
        raise PrunetError(
            f'the loss is not finite: {term} is {losses[term].item()} at step {runner.iter + 1}; '
            'lower the learning rate or look for broken images; checkpoints of earlier steps are '
            f'in {runner.work_dir}'
        )
