"""Sorts the channels of a trained network by what the loss says of them."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.importance import sort_by_taylor


@HOOKS.register_module()
class ImportanceHook(Hook):
    """Sorts hidden channels by Taylor importance, before the first step.

    It acts where the SuperNet starts as a trained network that asks for it, as is the default.

    Args:
        batches: Of the architecture's images.

    Raises:
        ConfigError: There are none.
    """

    priority = 'VERY_HIGH'  # before anything looks at the weights

    def __init__(self, batches: int = 8) -> None:
        self.batches = batches

    def before_train(self, runner) -> None:
        """Sort, unless a checkpoint has been loaded, in which they are."""
        if runner.iter == 0 and runner.model.supernet.importance == 'taylor':
            sort_by_taylor(runner, self.batches)
