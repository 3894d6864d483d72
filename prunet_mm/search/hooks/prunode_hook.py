"""Tier 1: the Prunodes walk towards their best hidden widths."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.schedule import Schedule
from prunet_mm.supernet.unused_channels import reset_state

NARROWING = dict(start=0.25, end=0.0, finish=0.7)


@HOOKS.register_module()
class PrunodeHook(Hook):
    """Lets the pair of hidden widths of every Prunode walk (arXiv 2209.11785, tier 1).

    Without this hook hidden widths are not searched: each stays where it starts. The rules and
    the schedule are our reconstruction.

    Args:
        gap: Schedule of the distance between the two widths, as a fraction of the widest one.
            It never falls below the granularity, so 0 stands for it.
    """

    def __init__(self, gap: dict = NARROWING) -> None:
        self.gap = Schedule.build(gap)

    def before_train(self, runner) -> None:
        """Let the widths be searched."""
        runner.model.supernet.walking = True

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Narrow the pairs."""
        supernet = runner.model.supernet
        void = supernet.set_gap(self.gap(runner.train_loop.progress))
        reset_state(runner.optim_wrapper['architecture'].optimizer, void)
        self._before = _pairs(supernet)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Walk, after an architecture step; a pair that was moved is logged."""
        loop, supernet = runner.train_loop, runner.model.supernet
        if not loop.stepped:
            return
        reset_state(runner.optim_wrapper['architecture'].optimizer, supernet.walk())
        for name, (lo, hi) in _pairs(supernet).items():
            old = self._before[name]
            if (lo, hi) != old:
                loop.record(dict(kind='move', candidate=name, old=list(old), new=[lo, hi]))


def _pairs(supernet) -> dict[str, tuple[int, int]]:
    return {
        f'{layer_name}.{name}': block.rule.pair()[:2]
        for layer_name, layer in supernet.layers().items()
        for name, block in layer.candidates.items()
        if getattr(block, 'rule', None)
    }
