"""A learning rate that falls in steps whose length need not be a whole number of epochs."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import StepLR
from mmengine.registry import PARAM_SCHEDULERS

from prunet_mm.errors import ConfigError


@PARAM_SCHEDULERS.register_module()
class StaircaseLR(StepLR):
    """Multiplies the learning rate by ``gamma`` once for every ``step_size`` that has passed.

    For ``0.97 every 2.4 epochs``: the rate of epoch t is multiplied by gamma ** floor(t / 2.4). A
    `StepLR` waits for a step that is divisible by its ``step_size``, so that with 2.4 it acts at
    12, 24, 36, ... or, where rounding is against it, never.

    Like other schedulers of mmengine it changes the rate that it finds, so it combines with a
    warm-up in the same list. ``convert_to_iter_based=True`` counts iterations, not epochs.

    Args:
        optimizer: The optimizer or its wrapper.
        step_size: Epochs (iterations with ``by_epoch=False``) between two reductions, > 0.
        gamma: Factor of one reduction.
        **kwargs: As for `StepLR`: begin, end, last_step, by_epoch, verbose.

    Raises:
        ConfigError: ``step_size`` is not positive.
    """

    def __init__(self, optimizer: Any, step_size: float, gamma: float = 0.1, **kwargs: Any) -> None:
        if not step_size > 0:
            raise ConfigError(f'StaircaseLR: step_size is {step_size}, but has to be positive')
        super().__init__(optimizer, step_size=step_size, gamma=gamma, **kwargs)

    def _get_value(self) -> list[float]:
        reductions = self._passed(self.last_step) - self._passed(max(self.last_step - 1, 0))
        factor = self.gamma**reductions
        return [group[self.param_name] * factor for group in self.optimizer.param_groups]

    def _passed(self, step: int) -> int:
        # Rounded, since the quotient of a decimal fraction may fall just short of a whole number.
        return math.floor(round(step / self.step_size, 9))
