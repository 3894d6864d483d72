"""Tier 3: layers that are not worth their latency leave for good."""

from __future__ import annotations

import math

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.errors import ConfigError
from prunet_mm.latency.limits import printed_limits
from prunet_mm.search.settle import mean_and_error
from prunet_mm.supernet.stochastic_layer import SKIP
from prunet_mm.supernet.unused_channels import forget_removed


@HOOKS.register_module()
class LayerPruningHook(Hook):
    """Opens a skip around every skippable layer, and removes layers.

    In a blend a skip that competes from the start favours networks that are too shallow, so
    arXiv 2209.11785, tier 3, lets it enter late (``begin``). Hard paths judge networks without the
    layer, which need not wait. Once it is open a layer is there with the probability k, its
    keep coefficient. A low k alone is no proof that the layer is useless. So it goes only when k
    is below the threshold *and* a direct test agrees: on the same architecture batches, the task
    loss of the network that would be derived now, without the layer, rises by less than what
    lambda pays for the latency that goes away, by a margin in standard errors of the rise; only
    when the budget does not fall any more, while lambda is steady, and while the rest, at its
    widest, can still use the budget. Coefficient, test and numbers are our reconstruction.

    Args:
        begin: Point of the architecture phase (0 to 1) at which the skips open.
        end: Point after which no layer is tested any more; settling follows.
        threshold: Keep coefficient below which a layer is tested.
        probes: Architecture batches in a test, at least 2.
        margin: Standard errors by which the rise has to be below what the latency is worth.
        interval: Architecture steps from one round of tests to the next.

    Raises:
        ConfigError: The coefficients cannot reach the threshold in the steps and at the learning
            rate that they have.
    """

    def __init__(
        self,
        begin: float = 0.0,
        end: float = 0.75,
        threshold: float = 0.5,
        probes: int = 8,
        margin: float = 1.0,
        interval: int = 10,
    ) -> None:
        if not 0 <= begin < end <= 1 or not 0 < threshold < 1 or probes < 2:
            raise ConfigError(
                f'LayerPruningHook: found begin={begin}, end={end}, threshold={threshold}, '
                f'probes={probes}; expected 0 <= begin < end <= 1, a threshold between 0 and 1 '
                'and at least 2 probes.'
            )
        self.begin, self.end, self.threshold = begin, end, threshold
        self.probes, self.margin, self.interval = probes, margin, interval

    def before_train(self, runner) -> None:
        """Check that a keep coefficient can get from 1 to below the threshold."""
        if runner.model.supernet.sampling == 'hard':  # it follows from scores, at any speed
            return
        loop = runner.train_loop
        steps = (self.end - self.begin) * (loop.max_iters - loop.warmup_iters) / loop.interval
        wrapper = runner.optim_wrapper['architecture']
        group = next(group for group in wrapper.param_groups if group['name'] == 'keep')
        rate = group.get('initial_lr') or group['lr']
        # A quarter: half of the way for gradients that change sign, half for rates that decay.
        if steps * rate / 4 < 1 - self.threshold:
            factor = 4 * (1 - self.threshold) / steps / wrapper.optimizer.defaults['lr']
            raise ConfigError(
                f'LayerPruningHook: a keep coefficient cannot fall from 1 to {self.threshold} in '
                f'{steps:.0f} architecture steps at a learning rate of {rate:.2g}; it takes '
                'optim_wrapper.architecture.paramwise_cfg.keep of at least '
                f'{printed_limits(factor, math.inf)[0]}, or more steps.'
            )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Open the skips when it is time; test and remove, after an architecture step."""
        loop, supernet = runner.train_loop, runner.model.supernet
        if not loop.stepped or loop.progress < self.begin:
            return
        if not supernet.skip_open:
            supernet.open_skips()
        supernet.clamp_keeps()
        due = loop.architecture_steps % self.interval == 0
        at_last = runner.model.ramp.at_last
        if due and at_last and loop.progress <= self.end and runner.model.steady:
            self._test_layers(runner)

    def _test_layers(self, runner) -> None:
        """Test the layers with a low coefficient; the one that is worth least may go.

        One at a time: when it is gone, less latency has to go, and the others matter more.
        """
        loop, model = runner.train_loop, runner.model
        low = [
            name
            for name, layer in model.supernet.layers().items()
            if layer.skip_open and float(layer.keep.detach()) < self.threshold
        ]
        if not low:
            return
        tests = self._compare(runner, low)
        least = min(low, key=lambda name: tests[name]['loss_rise'] - tests[name]['worth'])
        budget_ms, supernet = model.ramp.budget_ms, model.supernet
        for name, test in tests.items():
            goes = (
                name == least
                and test['loss_rise'] + self.margin * test['loss_rise_se'] < test['worth']
                # Nothing is gained by a network that cannot use its budget.
                and supernet.widest_ms(without=name) >= budget_ms
            )
            runner.logger.info(
                f'step {loop.iter + 1}: {name} {"removed" if goes else "stays"} at keep '
                f'coefficient {test["probability"]:.3f} (threshold {self.threshold}): without it '
                f'the loss rises by {test["loss_rise"]:.4f} +- {test["loss_rise_se"]:.4f}, its '
                f'{test["freed_ms"]:.4f} ms ({model.table.kind} table) are worth '
                f'{test["worth"]:.4f} at lambda {test["multiplier"]:.3f}'
            )
            if goes:
                supernet.remove_layer(name)
                loop.record(dict(kind='layer', layer=name, threshold=self.threshold, **test))
                for wrapper in runner.optim_wrapper.values():
                    forget_removed(wrapper.optimizer, model)

    def _compare(self, runner, names: list[str]) -> dict[str, dict[str, float]]:
        """Compare, for each of some layers, the network without it with the one that has it."""
        loop, model = runner.train_loop, runner.model
        layers = model.supernet.layers()
        batches = loop.dataloader.probe('architecture', self.probes, loop.iter)
        path, price, tests = model.derived_path(), model.price(), {}
        for name in names:
            best = layers[name].best()
            there, gone = (
                model.task_losses(batches, {**path, name: choice}) for choice in (best, SKIP)
            )
            rise, error = mean_and_error(gone - there)
            freed_ms = layers[name].costs_ms()[best]
            tests[name] = dict(
                price,
                probability=float(layers[name].keep.detach()),
                loss_rise=rise,
                loss_rise_se=error,
                freed_ms=freed_ms,
                worth=freed_ms
                * model.objective.price_per_ms(price['expected_ms'], float(there.mean())),
            )
        return tests
