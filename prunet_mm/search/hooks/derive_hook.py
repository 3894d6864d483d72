"""Ends a search in a network."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.finish import conclude


@HOOKS.register_module()
class DeriveHook(Hook):
    """Derives the best network within the budget, and reports, after the last step."""

    priority = 'VERY_LOW'  # after the last checkpoint

    def after_train(self, runner) -> None:
        """See :func:`prunet_mm.search.finish.conclude`."""
        conclude(runner)
