"""Lowers the budget step by step, and takes a network wherever one is asked for on the way."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.finish import take_target
from prunet_mm.search.settle import circumstances


@HOOKS.register_module()
class RampHook(Hook):
    """Lets the budget fall along :class:`BudgetRamp`, after every architecture step.

    At a target before the last one a copy of the search is settled and exported, once the budget
    has rested there; the search itself goes on undisturbed.
    """

    priority = 'ABOVE_NORMAL'  # before the tiers of pruning

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Lower the budget."""
        loop, model = runner.train_loop, runner.model
        if not loop.stepped:
            return
        target_ms = model.ramp.target_ms
        expected_ms = float(model.supernet.expected_latency_ms().detach())
        begun = model.ramp.budget_ms is not None
        if model.ramp.step(loop.architecture_steps + 1, expected_ms, model.objective.steady):
            loop.record(dict(kind='target', target_ms=target_ms, **circumstances(runner)))
            take_target(runner, target_ms)
        elif not begun and model.ramp.budget_ms is not None:
            runner.logger.info(
                f'step {loop.iter + 1}: the budget begins to fall, from {model.ramp.budget_ms:.4g} '
                f'ms to {model.ramp.targets_ms[-1]:.4g} ms'
            )
