"""mmengine's Runner, for a model whose parameters come and go."""

from __future__ import annotations

import torch.distributed as dist
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn


@RUNNERS.register_module()
class SearchRunner(Runner):
    """A Runner that leaves the model unwrapped, on any number of processes.

    ``MMDistributedDataParallel`` refuses an ``OptimWrapperDict``, and torch's fails once a
    parameter is deleted. :class:`ArchitectureSearch` averages gradients itself; all that is left
    to do here is to let every rank start from the same weights.
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to the device; see :meth:`mmengine.runner.Runner.wrap_model`."""
        return model.to(get_device())

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        if self.distributed:
            for tensor in self.model.state_dict().values():
                dist.broadcast(tensor, src=0)
