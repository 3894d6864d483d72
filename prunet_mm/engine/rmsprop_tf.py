"""RMSprop as TensorFlow defines it, which the recipes of EfficientNet and its kin rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor
from torch.optim import Optimizer

from prunet_mm.errors import ConfigError


@OPTIMIZERS.register_module()
class RMSpropTF(Optimizer):
    """RMSprop (Tieleman and Hinton, 2012) with TensorFlow's three choices.

    Against `torch.optim.RMSprop`: the mean of the squared gradient starts at one and not at zero,
    ``eps`` is added inside the square root, and the momentum buffer holds steps that the learning
    rate of their time has already scaled. With the large ``eps`` and the decaying learning rates
    of these recipes, each of them matters. Gives the steps of timm's optimiser of the same name.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        alpha: Weight of the past in the mean of the squared gradient, from 0 to 1.
        eps: Added to that mean before the root is taken.
        momentum: Share of the last step in the next one; 0 keeps no buffer.
        weight_decay: L2 penalty, as a multiple of the parameter in its gradient.

    Raises:
        ConfigError: One of the numbers is outside its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 0.01,
        alpha: float = 0.9,
        eps: float = 1e-10,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = dict(lr=lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)
        for name, value in defaults.items():
            if not 0 <= value <= (1 if name in ('alpha', 'momentum') else float('inf')):
                allowed = 'from 0 to 1' if name in ('alpha', 'momentum') else 'at least 0'
                raise ConfigError(f'RMSpropTF: {name} is {value}, but has to be {allowed}')
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Takes one step.

        Args:
            closure: Computes the loss and its gradients anew.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group['params']:
                if param.grad is not None:
                    self._update(param, group)
        return loss

    def _update(self, param: Tensor, group: dict) -> None:
        state = self.state[param]
        if not state:
            state['square_avg'] = torch.ones_like(param)
        grad = param.grad.add(param, alpha=group['weight_decay'])
        square_avg = state['square_avg'].lerp_(grad.square(), 1 - group['alpha'])
        step = grad.mul_(group['lr']).div_(square_avg.add(group['eps']).sqrt_())
        if group['momentum'] > 0:
            if 'momentum_buffer' not in state:
                state['momentum_buffer'] = torch.zeros_like(param)
            step = state['momentum_buffer'].mul_(group['momentum']).add_(step)
        param.sub_(step)
