"""mmengine's Runner, for a model whose parameters come and go."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from torch import nn

from prunet_mm.engine.checkpoint import mark_latest, resume_point
from prunet_mm.engine.screen_runner import ScreenRunner
from prunet_mm.errors import CheckpointError, ConfigError
from prunet_mm.latency.limits import printed_limits
from prunet_mm.search.finish import apply_rule, conclude
from prunet_mm.search.hooks import LayerPruningHook, TrainedStartHook
from prunet_mm.search.model import ArchitectureSearch


@RUNNERS.register_module()
class SearchRunner(ScreenRunner):
    """A Runner that leaves the model unwrapped, on any number of processes.

    ``MMDistributedDataParallel`` refuses an ``OptimWrapperDict``, and torch's fails once a
    parameter is deleted. :class:`ArchitectureSearch` averages gradients itself; all that is left
    to do here is to let every rank start from the same weights.
    """

    conclusion = 'deriving the network, measuring and drawing it'

    def status(self) -> str:
        """Tell the loss, and the expected latency beside its budget."""
        loop, model = self.train_loop, self.model
        if loop.iter < loop.warmup_iters:
            return f'{super().status()}  warming up'
        expected_ms = float(model.supernet.expected_latency_ms().detach())
        kind = 'latency' if model.table.kind == 'measured' else model.table.kind
        return f'{super().status()}  {kind} {expected_ms:.3g}/{model.budget.budget_ms:.3g} ms'

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; see :meth:`mmengine.runner.Runner.build_model`.

        Raises:
            ConfigError: It is none to search with.
        """
        built = super().build_model(model)
        if not isinstance(built, ArchitectureSearch):
            raise ConfigError(
                f'model: found {type(built).__name__}, expected an ArchitectureSearch around it: '
                'configs/search/ has examples.'
            )
        return built

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to the device, in channels-last, as convolutions are fastest."""
        return model.to(get_device(), memory_format=torch.channels_last)

    def train(self) -> nn.Module:
        """Search; see :meth:`mmengine.runner.Runner.train`.

        Raises:
            ConfigError: The budget takes skips, and no hook would open them.
        """
        budget_ms, least_ms = self.model.budget.budget_ms, self.model.supernet.reachable_ms()
        if budget_ms < least_ms and not any(isinstance(h, LayerPruningHook) for h in self.hooks):
            raise ConfigError(
                f'The budget of {budget_ms:.6g} ms takes layers that are skipped: with all of them '
                f'{printed_limits(least_ms, math.inf)[0]} ms is the least; ask for that much, or '
                'add a LayerPruningHook to custom_hooks.'
            )
        return super().train()

    def load_or_resume(self) -> None:
        """Find the latest checkpoint in the work dir, also if that folder was moved."""
        if self._resume and self._load_from is None:
            latest = resume_point(self.work_dir)
            if latest is None:
                self.logger.info(
                    f'No checkpoint in {self.work_dir} yet: starting from the beginning.'
                )
                self._resume = False
            else:
                self._load_from = str(latest)
        super().load_or_resume()
        if self._resume and self.rank == 0:
            # Or a search killed before its next checkpoint would go on from another one.
            mark_latest(self._load_from, self.work_dir)

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Load a search; see :meth:`mmengine.runner.Runner.load_checkpoint`.

        Raises:
            CheckpointError: It is damaged, no search's checkpoint, or of another search.
        """
        try:
            return super().load_checkpoint(filename, *args, **kwargs)
        except CheckpointError as error:
            if str(filename) in str(error):
                raise
            raise CheckpointError(f'{filename}: {error}') from error

    def build_param_scheduler(self, scheduler: dict) -> dict:
        """Build the schedulers; see :meth:`mmengine.runner.Runner.build_param_scheduler`."""
        built = super().build_param_scheduler(scheduler)
        # They run from the first step on, while this wrapper rests until the warm-up is over,
        # which they would take for a mistake: let it count as begun.
        self.optim_wrapper['architecture']._global_step = 0
        return built

    def derive(self, checkpoint: str) -> None:
        """Derive the network from a checkpoint of a search, without searching on.

        Raises:
            CheckpointError: It is no search's checkpoint, or of another budget or table.
        """
        self._train_loop = self.build_train_loop(self._train_loop)
        self.load_checkpoint(checkpoint)
        conclude(self)

    def apply_rule(self, name: str) -> None:
        """Cut the network that the SuperNet starts as by a rule, without a search.

        Args:
            name: Of the rule, in `prunet_mm.search.rules.RULES`.

        Raises:
            ConfigError: The SuperNet does not start as a trained network.
            SearchError: By this rule nothing is within the budget.
        """
        self._train_loop = self.build_train_loop(self._train_loop)
        self._init_model_weights()
        if self.model.supernet.importance is None:
            raise ConfigError(
                f'--rule {name} cuts a trained network, and this search starts from none: give its '
                "backbone init_cfg=dict(type='TrainedNetwork', ...)"
            )
        TrainedStartHook().prepare(self)
        conclude(self, apply_rule(self, name))

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        if self.distributed:
            for tensor in self.model.state_dict().values():
                dist.broadcast(tensor, src=0)
