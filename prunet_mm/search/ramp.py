"""The budget on its way down: equal ratios, with a rest at every latency that is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from prunet_mm.errors import ConfigError


class BudgetRamp(nn.Module):
    """Lowers a latency budget in ms from where a search begins to the lowest of its targets.

    A budget that jumps lets lambda overshoot, and what is decided meanwhile is paid at a price
    that never was one. So the budget falls in equal ratios, and rests at every target until lambda
    is steady. Our reconstruction.

    Args:
        targets_ms: Latencies asked for, falling.
        steps: Architecture steps of the search.
        begin: Share of these before the budget falls, in which choices are only listened to.
        fall: Share in which it falls.
        rest: Share in which it rests at targets before the last one, at most, all together.
        jump: Go to each target at once instead, for comparison.

    Raises:
        ConfigError: The shares are impossible.
    """

    def __init__(
        self,
        targets_ms: Sequence[float],
        steps: int,
        begin: float = 0.1,
        fall: float = 0.5,
        rest: float = 0.15,
        jump: bool = False,
    ) -> None:
        super().__init__()
        if not (begin >= 0 and fall > 0 and rest >= 0 and begin + fall + rest <= 1):
            raise ConfigError(
                f'train_cfg.ramp: found begin={begin}, fall={fall}, rest={rest}; expected shares '
                'of the architecture steps, of which fall is above 0, and no more than 1 in sum.'
            )
        self.targets_ms, self.jump = tuple(targets_ms), jump
        self.begin, self.fall_steps = math.ceil(begin * steps), max(1, round(fall * steps))
        earlier = len(self.targets_ms) - 1
        self.longest_rest = max(1, round(rest * steps / max(earlier, 1)))
        self.shortest_rest = max(1, self.longest_rest // 4)
        # start and present budget in ms, 0 until it begins
        self.register_buffer('start_ms', torch.zeros((), dtype=torch.float64))
        self.register_buffer('now_ms', torch.zeros((), dtype=torch.float64))
        self.register_buffer('passed', torch.zeros((), dtype=torch.int64))
        self.register_buffer('rested', torch.zeros((), dtype=torch.int64))

    @property
    def budget_ms(self) -> float | None:
        """The budget at present; None while choices are only listened to."""
        return float(self.now_ms) or None

    @property
    def target_ms(self) -> float:
        """The target that the budget falls to, or rests at."""
        return self.targets_ms[int(self.passed)]

    @property
    def at_last(self) -> bool:
        """Whether the budget is at the lowest target, from where it does not fall any more."""
        return self.budget_ms == self.targets_ms[-1]

    @torch.no_grad()
    def step(self, done: int, expected_ms: float, steady: bool) -> bool:
        """Lower the budget, after an architecture step.

        Args:
            done: Architecture steps done.
            expected_ms: E[lat] at present.
            steady: Whether lambda is near its moving average.

        Returns:
            Whether a target before the last one has had its rest: the network for it is to be
            taken now, and the budget falls on.
        """
        if done < self.begin:
            return False
        if self.budget_ms is None:
            self.start_ms.fill_(max(expected_ms, self.targets_ms[0]))
            self.now_ms.copy_(self.start_ms)
        if float(self.now_ms) > self.target_ms:
            ratio = (self.targets_ms[-1] / float(self.start_ms)) ** (1 / self.fall_steps)
            lower = 0.0 if self.jump else float(self.now_ms) * ratio
            self.now_ms.fill_(max(lower, self.target_ms))
            return False
        if self.at_last:
            return False
        self.rested += 1
        rested = int(self.rested)
        if rested < self.longest_rest and not (steady and rested >= self.shortest_rest):
            return False
        self.rested.zero_()
        self.passed += 1
        return True
