"""Settles the discrete choices while there are steps left for the widths to follow."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.errors import ConfigError
from prunet_mm.search.settle import Decision, circumstances, next_decision
from prunet_mm.supernet.stochastic_layer import SKIP
from prunet_mm.supernet.unused_channels import forget_removed

MOST = 0.03  # share of the budget by which a decision may move E[lat] at once


@HOOKS.register_module()
class SettleHook(Hook):
    """Decides one layer at a time, the clearest first, with steps in between.

    The next one waits until the budget has come to rest, lambda is steady, and E[lat] is within
    1 % of the budget again. Near ties are measured at equal latency. A decision that would move
    E[lat] by more than 3 % of the budget, such as that a layer goes, is carried out in parts, each
    of which waits in the same way, so that widths follow at a price that stays one. What the steps
    do not suffice for, and everything in a space without hidden widths, which has nothing that
    could follow, is settled at the end. Our reconstruction.

    Args:
        at: Point of the architecture phase, from 0 to 1.
        interval: Architecture steps from one decision to the next, at least.
        probes: Architecture batches on which a near tie is measured.

    Raises:
        ConfigError: An impossible value.
    """

    def __init__(self, at: float = 0.75, interval: int = 5, probes: int = 8) -> None:
        if not 0 <= at <= 1 or interval < 1 or probes < 2:
            raise ConfigError(
                f'SettleHook: found at={at}, interval={interval}, probes={probes}; expected a '
                'point from 0 to 1, an interval of at least 1 and at least 2 probes.'
            )
        self.at, self.interval, self.probes = at, interval, probes

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Decide, after an architecture step, if it is time."""
        loop, model = runner.train_loop, runner.model
        if not loop.stepped or loop.progress < self.at or not model.supernet.widths_move:
            return
        if loop.architecture_steps % self.interval or not model.at_rest:
            return
        if model.supernet.reachable_ms() > model.ramp.budget_ms:  # it takes skips, not open yet
            return
        probe = loop.dataloader.probe('architecture', self.probes, loop.iter)
        supernet, budget_ms = model.supernet, model.ramp.budget_ms
        decision = (
            Decision(**{name: supernet.settling[name] for name in Decision._fields})
            if supernet.settling
            else next_decision(model, budget_ms, probe)
        )
        if decision is None:
            return
        facts = circumstances(runner)
        layer = supernet.layers()[decision.layer]
        chances, costs = layer.chances(), layer.costs_ms()
        expected_ms = sum(chance * costs[name] for name, chance in chances.items())
        move = abs(costs[decision.choice] - expected_ms) / budget_ms
        if move > MOST and supernet.sampling == 'hard':
            supernet.lean(decision._asdict(), MOST / move)
            runner.logger.info(
                f'step {loop.iter + 1}: {decision.layer} is on its way to {decision.choice}, '
                f'{supernet.settling["way"]:.0%} of which is sure; E[lat] moves by '
                f'{model.price()["expected_ms"] - facts["expected_ms"]:+.4f} ms at lambda '
                f'{facts["multiplier"]:.3f}'
            )
            return
        supernet.decide(decision.layer, decision.choice)
        for wrapper in runner.optim_wrapper.values():
            forget_removed(wrapper.optimizer, model)
        facts |= dict(
            share=decision.share,
            rival=decision.rival,
            rise=decision.rise,
            rise_se=decision.rise_se,
            jump_ms=model.price()['expected_ms'] - facts['expected_ms'],
        )
        if decision.choice == SKIP:
            loop.record(
                dict(kind='layer', layer=decision.layer, probability=1 - chances[SKIP], **facts)
            )
        for name, chance in chances.items():
            if decision.choice != SKIP and name not in (decision.choice, SKIP):
                event = dict(kind='settled', layer=decision.layer, candidate=name)
                loop.record(dict(event, probability=chance, **facts))
        measured = (
            f'; with {decision.rival} at equal latency the loss is {decision.rise:.4f} +- '
            f'{decision.rise_se:.4f} higher'
            if decision.rise is not None
            else ''
        )
        runner.logger.info(
            f'step {loop.iter + 1}: {decision.layer} settles for {decision.choice}, the exact '
            f'choice of {decision.share:.0%} of the draws{measured}; E[lat] moves by '
            f'{facts["jump_ms"]:+.4f} ms at lambda {facts["multiplier"]:.3f}'
        )
