"""Latency objectives: what the architecture step adds to the task's loss.

All but the first are there for comparison: their weight is fixed, so where the latency settles
depends on the task, and none is made to meet a budget.
"""

from __future__ import annotations

import math

import torch
from mmengine.registry import Registry
from torch import Tensor, nn

from prunet_mm.search.steadiness import MEMORY, STEADY_FLOOR, STEADY_SHARE

OBJECTIVES = Registry('latency objective', locations=['prunet_mm.search.objective'])


class LatencyObjective(nn.Module):
    """Joins a task loss and an expected latency into one loss.

    State that must survive a restart (the multiplier) is a buffer.

    Args:
        budget_ms: Latency asked for, in ms.
        weight: Weight of the latency term; for the augmented Lagrangian its start.
    """

    def __init__(self, budget_ms: float, weight: float) -> None:
        super().__init__()
        self.budget_ms = budget_ms
        self.register_buffer('multiplier', torch.tensor(float(weight), dtype=torch.float64))
        self.register_buffer('average', torch.tensor(float(weight), dtype=torch.float64))

    def penalty(self, expected_ms: Tensor) -> Tensor:
        """Return the latency term for an expected latency in ms (0-d, differentiable)."""
        raise NotImplementedError

    def forward(self, task_loss: Tensor, expected_ms: Tensor) -> Tensor:
        """Return the loss of the architecture step."""
        return task_loss + self.penalty(expected_ms)

    meets_budget = False  # whether the multiplier is there to meet the budget

    def settle(self, multiplier: float) -> None:
        """Put lambda where the budget is met, if that is known; its average follows."""
        self.multiplier.fill_(multiplier)
        self.average.lerp_(self.multiplier, 1 / MEMORY)

    @property
    def steady(self) -> bool:
        """Whether lambda is near its moving average, so that what it pays is a price."""
        away = abs(float(self.multiplier - self.average))
        return away <= STEADY_FLOOR + STEADY_SHARE * abs(float(self.average))

    def update(self, expected_ms: float) -> None:
        """Act once after each architecture step; nothing for a fixed weight."""

    def price_per_ms(self, expected_ms: float, task_loss: float) -> float:
        """Return by how much the loss falls per ms that goes away at this point."""
        value = torch.tensor(float(expected_ms), dtype=torch.float64, requires_grad=True)
        total = self(torch.tensor(task_loss, dtype=torch.float64), value)
        (slope,) = torch.autograd.grad(total, value)
        return max(float(slope), 0.0)


@OBJECTIVES.register_module()
class AugmentedLagrangian(LatencyObjective):
    """Loss + lambda c + k mu / 2 c^2 with c = log(E[lat] / budget); lambda follows c (default).

    The stiffness k = 1 + |lambda| lets one setting serve losses of any scale: lambda settles at
    what the loss pays for latency, and what steers lambda has to keep up with it. Only a bounded
    ``c`` is integrated (anti-windup): without that a hard budget is undershot by what piled up on
    the way. Our reconstruction; ``benchmarks/walking_rules.py`` measures it.

    Args:
        budget_ms: Latency asked for, in ms.
        weight: First value of lambda.
        mu: Weight of the quadratic term.
        rate: Lambda grows by ``k * rate * c`` per architecture step.
        limit: Largest ``|c|`` that is integrated.
    """

    meets_budget = True

    def __init__(
        self,
        budget_ms: float,
        weight: float = 0.0,
        mu: float = 4.0,
        rate: float = 0.1,
        limit: float = 0.1,
    ) -> None:
        super().__init__(budget_ms, weight)
        self.mu, self.rate, self.limit = mu, rate, limit

    @property
    def stiffness(self) -> Tensor:
        """How much stronger than at lambda = 0 the latency is steered."""
        return 1 + self.multiplier.abs()

    def penalty(self, expected_ms: Tensor) -> Tensor:
        gap = torch.log(expected_ms / self.budget_ms)
        spring = self.stiffness * self.mu / 2
        return self.multiplier.to(gap.dtype) * gap + spring.to(gap.dtype) * gap**2

    @torch.no_grad()
    def update(self, expected_ms: float) -> None:
        # Below 0 after a step that took keep coefficients too far, until they are clamped.
        gap = math.log(expected_ms / self.budget_ms) if expected_ms > 0 else -math.inf
        self.multiplier += self.stiffness * self.rate * min(max(gap, -self.limit), self.limit)
        self.average.lerp_(self.multiplier, 1 / MEMORY)

    def price_per_ms(self, expected_ms: float, task_loss: float) -> float:
        """Return what lambda pays per ms; the quadratic term steers and says no price."""
        return max(float(self.multiplier), 0.0) / expected_ms


@OBJECTIVES.register_module()
class FixedWeight(LatencyObjective):
    """Loss + weight * E[lat] / budget."""

    def __init__(self, budget_ms: float, weight: float = 1.0) -> None:
        super().__init__(budget_ms, weight)

    def penalty(self, expected_ms: Tensor) -> Tensor:
        return self.multiplier.to(expected_ms.dtype) * expected_ms / self.budget_ms


@OBJECTIVES.register_module()
class FBNetProduct(LatencyObjective):
    """Loss * weight * log(E[lat])^beta, as in *FBNet* (arXiv 1812.03443, eq. 2).

    The latency is in microseconds inside the logarithm, which would be negative for values
    below 1.
    """

    def __init__(self, budget_ms: float, weight: float = 0.2, beta: float = 0.6) -> None:
        super().__init__(budget_ms, weight)
        self.beta = beta

    def forward(self, task_loss: Tensor, expected_ms: Tensor) -> Tensor:
        factor = torch.log(expected_ms * 1000).clamp(min=1e-6) ** self.beta
        return task_loss * self.multiplier.to(factor.dtype) * factor


@OBJECTIVES.register_module()
class Hinge(LatencyObjective):
    """Loss + weight * max(0, E[lat] / budget - 1)."""

    def __init__(self, budget_ms: float, weight: float = 1.0) -> None:
        super().__init__(budget_ms, weight)

    def penalty(self, expected_ms: Tensor) -> Tensor:
        excess = torch.relu(expected_ms / self.budget_ms - 1)
        return self.multiplier.to(excess.dtype) * excess
