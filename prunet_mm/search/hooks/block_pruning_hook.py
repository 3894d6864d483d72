"""Tier 2: improbable candidates leave their layers for good."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.schedule import Schedule
from prunet_mm.search.settle import circumstances
from prunet_mm.supernet.unused_channels import forget_removed

RISING = dict(start=0.0, end=0.05, begin=0.1, finish=0.7)


@HOOKS.register_module()
class BlockPruningHook(Hook):
    """Removes candidates whose probability is below a threshold that rises linearly.

    From arXiv 2209.11785, tier 2; the thresholds are our reconstruction. Nothing is decided while
    lambda is away from its moving average, nor while the budget falls: what is improbable now may
    be what a lower one needs, and a choice that is not made costs nothing. Nothing ever goes
    without which no network that is left is within the (lowest) budget. A removal at a
    probability close to that of the others says that the choice was nearly a coin flip, so each
    is logged with its probability.

    Args:
        threshold: Schedule of the threshold.
    """

    def __init__(self, threshold: dict = RISING) -> None:
        self.threshold = Schedule.build(threshold)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Prune, after an architecture step."""
        loop, model = runner.train_loop, runner.model
        if not loop.stepped or not model.ramp.at_last or not model.steady:
            return
        threshold = self.threshold(loop.progress)
        removed = model.supernet.prune_below(threshold, model.budget.budget_ms)
        facts = circumstances(runner) if removed else {}
        for layer, candidate, probability in removed:
            runner.logger.info(
                f'step {loop.iter + 1}: {layer} loses candidate {candidate} at probability '
                f'{probability:.3f} (threshold {threshold:.3f}) and lambda '
                f'{facts["multiplier"]:.3f}'
            )
            loop.record(
                dict(
                    kind='candidate',
                    layer=layer,
                    candidate=candidate,
                    probability=probability,
                    threshold=threshold,
                    **facts,
                )
            )
        if removed:
            for wrapper in runner.optim_wrapper.values():
                forget_removed(wrapper.optimizer, model)
