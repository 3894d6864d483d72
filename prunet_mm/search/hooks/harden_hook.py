"""Settles the discrete choices while there are steps left for the widths to re-fit the budget."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.supernet.unused_channels import forget_removed


@HOOKS.register_module()
class HardenHook(Hook):
    """Leaves every layer its most probable candidate only, and closes the skips.

    Layers that the budget has no room for, even at their narrowest, go too: keep coefficients
    between 0 and 1 may have met it in expectation only.

    Our reconstruction: the expectation that was optimised is not the network that is derived, so
    the widths get the rest of the search to bring that network to the budget.

    Args:
        at: Point of the architecture phase, from 0 to 1.
    """

    def __init__(self, at: float = 0.8) -> None:
        self.at = at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Harden once, when it is time, after an architecture step."""
        loop, model = runner.train_loop, runner.model
        if not loop.stepped or loop.progress < self.at or model.supernet.hardened:
            return
        for layer, keep in model.supernet.drop_unaffordable(model.budget.budget_ms):
            runner.logger.info(
                f'step {loop.iter + 1}: {layer} removed at keep coefficient {keep:.3f}: with it '
                'even the narrowest hidden widths exceed the budget'
            )
            loop.record(dict(kind='layer', layer=layer, probability=keep))
        for layer, candidate, probability in model.supernet.harden():
            runner.logger.info(
                f'step {loop.iter + 1}: hardening takes candidate {candidate} from {layer} at '
                f'probability {probability:.3f}'
            )
            loop.record(
                dict(kind='hardened', layer=layer, candidate=candidate, probability=probability)
            )
        for wrapper in runner.optim_wrapper.values():
            forget_removed(wrapper.optimizer, model)
