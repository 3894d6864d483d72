"""The searching model: any mmengine model that holds a SuperNet, with a latency budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import Tensor, nn

from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.device import device_name
from prunet_mm.models.recompute import frozen_statistics
from prunet_mm.registry import register_model
from prunet_mm.search.budget import Budget
from prunet_mm.search.latency_settings import require_settings, size_warning
from prunet_mm.search.objective import OBJECTIVES
from prunet_mm.supernet import SuperNet

REACHABLE = 1.05  # a target that leaves the widths some room above their narrowest


@register_model
class ArchitectureSearch(BaseModel):
    """Trains the weights and the architecture of a SuperNet inside another model.

    Args:
        architecture: Config of an mmpretrain classifier, an mmdet detector or any other mmengine
            model that contains exactly one :class:`SuperNet`.
        latency: ``table`` (path of a latency table) and either ``budget_ms`` or ``budget_ratio``
            (a fraction of the largest network's predicted latency). The keys ``device``,
            ``batch`` and ``threads`` say how ``tools/build_latency_table.py`` makes the table.
        objective: Latency objective; default: the augmented Lagrangian.
        data_preprocessor: That of ``architecture``; mmengine's Runner puts a config's here.

    Raises:
        ConfigError: No SuperNet, or more than one, in ``architecture``; or the table is of other
            settings than ``latency``.
        LatencyTableError: The table cannot be read or misses a block.
        SearchError: The budget is infeasible.
    """

    def __init__(
        self,
        architecture: dict,
        latency: dict,
        objective: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__()
        if data_preprocessor is not None:
            architecture = dict(data_preprocessor=data_preprocessor, **architecture)
        self.architecture = MODELS.build(architecture)
        self.latency = dict(latency)
        self._size = None  # of the images of the last batch
        self.other_size = ''  # what is wrong with the size of the images, for the report
        self.table = LatencyTable.load(latency['table'])
        require_settings(self.table, latency)
        print_log(f'Latencies are {self.table.describe()}.', logger='current')
        if not is_here(self.table, latency.get('device', 'cpu')):
            print_log(
                f'The latency table {latency["table"]} is of {self.table.device}, which is not in '
                'this machine: the network is searched for that device and not measured here.',
                logger='current',
                level=logging.WARNING,
            )
        self.supernet.attach_latency(self.table)
        self.budget = Budget.resolve(
            latency,
            self.supernet.fastest_ms(),
            self.table.predict_ms(self.supernet.space.largest()),
            self.table.kind,
        )
        self.objective = OBJECTIVES.build(
            # in its own scope: mmengine would warn that the config's default scope has none
            dict(objective or dict(type='AugmentedLagrangian'), _scope_=OBJECTIVES.scope),
            default_args=dict(budget_ms=self.budget.budget_ms),
        )
        self.data_preprocessor = self.architecture.data_preprocessor

    @property
    def supernet(self) -> SuperNet:
        """The SuperNet inside ``architecture``."""
        found = [m for m in self.architecture.modules() if isinstance(m, SuperNet)]
        if len(found) != 1:
            raise ConfigError(
                f'model.architecture holds {len(found)} SuperNets; expected exactly one, usually '
                "as backbone=dict(type='SuperNet', space=...)."
            )
        return found[0]

    def forward(self, inputs, data_samples=None, mode: str = 'tensor'):
        """Run ``architecture``; see :meth:`mmengine.model.BaseModel.forward`."""
        return self.architecture(inputs, data_samples, mode=mode)

    def train_step(self, data, optim_wrapper) -> dict:
        """Refuse: a search needs two streams of data, and the loop that draws them."""
        raise ConfigError("ArchitectureSearch needs train_cfg=dict(type='SearchLoop', ...).")

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return every parameter that is no architecture parameter."""
        groups = self.supernet.architecture_parameters().values()
        architecture = {id(p) for group in groups for p in group}
        return [p for p in self.parameters() if id(p) not in architecture]

    def weight_step(self, batches: Iterator, wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Take one step on the weights; architecture parameters stay as they are.

        Args:
            batches: As many are drawn as the wrapper accumulates gradients over.
            wrapper: Optimiser of the weights.

        Returns:
            The last batch's losses, by name.
        """
        with self._only(self.weight_parameters()):
            return self._step(batches, wrapper, lambda task: task)

    def architecture_step(self, batches: Iterator, wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Take one step on the architecture; weights and BN statistics stay as they are.

        Args:
            batches: As many are drawn as the wrapper accumulates gradients over.
            wrapper: Optimiser of the architecture parameters.

        Returns:
            The last batch's losses, by name.
        """
        # Until the skips open the budget may be out of reach; a multiplier that went on growing
        # meanwhile would tear out every layer the moment they do.
        self.objective.budget_ms = max(
            self.budget.budget_ms, REACHABLE * self.supernet.reachable_ms()
        )
        with frozen_statistics(self), self._only(self.supernet.searched_parameters()):
            log = self._step(
                batches,
                wrapper,
                lambda task: self.objective(task, self.supernet.expected_latency_ms()),
            )
        self.objective.update(float(self.supernet.expected_latency_ms().detach()))
        return log

    @torch.no_grad()
    def task_loss(self, batches: Sequence) -> float:
        """Return the mean task loss over some batches (mean over ranks), changing nothing.

        Nothing is drawn, and the norms use the batch's statistics, as in an architecture step.
        """
        layers = self.supernet.layers().values()
        for layer in layers:
            layer.deterministic = True
        with frozen_statistics(self):
            total = sum(self.losses(batch)[0].double() for batch in batches) / len(batches)
        for layer in layers:
            layer.deterministic = False
        if is_distributed():
            all_reduce_params([total], op='mean')
        return float(total)

    def val_step(self, data) -> list:
        """Predict; see :meth:`mmengine.model.BaseModel.val_step`."""
        return self.architecture.val_step(data)

    test_step = val_step

    def losses(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the task loss of a batch (0-d), and its terms by name."""
        data = self.data_preprocessor(batch, True)
        self._look_at(data.get('inputs') if isinstance(data, dict) else None)
        return self.parse_losses(self._run_forward(data, mode='loss'))

    def _look_at(self, images) -> None:
        """Warn, once, of images whose latency is not what the table says."""
        size = tuple(images.shape[-2:]) if isinstance(images, Tensor) else None
        if self.other_size or size in (None, self._size):
            return
        self._size = size
        self.other_size = size_warning(self.table, self.supernet.space.resolution, size)
        if self.other_size:
            print_log(self.other_size, logger='current', level=logging.WARNING)

    def _step(self, batches: Iterator, wrapper: OptimWrapper, objective) -> dict[str, Tensor]:
        while True:
            with wrapper.optim_context(self):
                task, log = self.losses(next(batches))
            total = objective(task)
            log = {name: value.detach() for name, value in (log | dict(total=total)).items()}
            _check_finite(log)
            wrapper.backward(wrapper.scale_loss(total))
            if wrapper.should_update():
                break
        if is_distributed():
            # No wrapper of torch: parameters come and go, which DistributedDataParallel forbids.
            held = [p for group in wrapper.param_groups for p in group['params']]
            all_reduce_params([p.grad for p in held if p.grad is not None], op='mean')
        wrapper.step()
        wrapper.zero_grad()
        return log

    @contextmanager
    def _only(self, parameters: list[nn.Parameter]) -> Iterator[None]:
        """Let gradients reach these parameters and no other."""
        wanted = {id(p) for p in parameters}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in wanted]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)


def is_here(table: LatencyTable, device: str) -> bool:
    """Whether this machine's ``device`` ('cpu', 'cuda', ...) is the one of a latency table."""
    try:
        return table.device == device_name(device)
    except ConfigError:  # there is no such device
        return False


def _check_finite(log: dict[str, Tensor]) -> None:
    bad = [name for name, value in log.items() if not math.isfinite(float(value))]
    if bad:
        # 'loss' and 'total' are sums; the term that spoiled them says more.
        term = next((name for name in bad if name not in ('loss', 'total')), bad[0])
        raise SearchError(f'The loss is not finite: {term} = {float(log[term])}.')
