"""Cools the softmax over architecture logits."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.schedule import Schedule

COOLING = dict(start=1.0, end=0.3, shape='exponential')


@HOOKS.register_module()
class TemperatureHook(Hook):
    """Sets the SuperNet's temperature before every iteration.

    High at first, so that every candidate trains; low in the end, so that the expectation that
    is optimised comes close to the network that is derived. Our reconstruction.

    Args:
        temperature: Schedule of the temperature.
    """

    def __init__(self, temperature: dict = COOLING) -> None:
        self.temperature = Schedule.build(temperature)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Follow the schedule."""
        runner.model.supernet.set_temperature(self.temperature(runner.train_loop.progress))
