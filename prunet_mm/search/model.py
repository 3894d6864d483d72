"""The searching model: any mmengine model that holds a SuperNet, with a latency budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce_dict, all_reduce_params, is_distributed
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import Tensor, nn

from prunet_mm.datasets.streams import same_draws
from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.latency import LatencyTable
from prunet_mm.models.recompute import frozen_statistics, without_dropout
from prunet_mm.registry import register_model
from prunet_mm.search.budget import Budget
from prunet_mm.search.choosing import chances_at, exact_paths, price_for, values_of
from prunet_mm.search.gradients import average_gradients
from prunet_mm.search.images import channels_last, halved, preprocess
from prunet_mm.search.latency_settings import doubt, require_settings, size_warning
from prunet_mm.search.objective import OBJECTIVES
from prunet_mm.search.ramp import BudgetRamp
from prunet_mm.supernet import SuperNet
from prunet_mm.supernet.paths import Widths, at_widths
from prunet_mm.supernet.scores import Path, PathScores
from prunet_mm.timing.device import is_here

NEAR = 0.05  # share of the budget by which E[lat] may be off when something is decided

Judged = tuple[Tensor, dict[str, Tensor]]  # a loss, 0-d, and its terms by name


@register_model
class ArchitectureSearch(BaseModel):
    """Trains the weights and the architecture of a SuperNet inside another model.

    Args:
        architecture: Config of an mmpretrain classifier, an mmdet detector or any other mmengine
            model that contains exactly one :class:`SuperNet`.
        latency: ``table`` (path of a latency table) and one of ``budget_ms``, ``budget_ratio``
            (a fraction of the predicted latency of the network that the space is around, or else
            of the largest) and ``targets_ms`` (several
            latencies, rising: a network for each). The keys ``device``, ``batch`` and ``threads``
            say how ``tools/build_latency_table.py`` makes the table.
        objective: Latency objective; default: the augmented Lagrangian.
        memory: Architecture steps after which a judgement of paths counts 1/e.
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
        memory: int = 200,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__()
        if data_preprocessor is not None:
            architecture = dict(data_preprocessor=data_preprocessor, **architecture)
        self.architecture = MODELS.build(architecture)
        self._place = _place_of_supernet(self.architecture)  # a walk through all modules is slow
        self.latency = dict(latency)
        self._size = None  # of the images of the last batch
        self.other_size = ''  # what is wrong with the size of the images, for the report
        self.table = LatencyTable.load(latency['table'])
        require_settings(self.table, latency)
        print_log(f'Latencies are {self.table.describe()}.', logger='current')
        if doubts := doubt(self.table):
            print_log(doubts, logger='current', level=logging.WARNING)
        if not is_here(self.table.device, latency.get('device', 'cpu')):
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
            self.supernet.slowest_ms(),
            self.table.kind,
            self.table.predict_ms(origin) if (origin := self.supernet.space.origin) else None,
        )
        self.objective = OBJECTIVES.build(
            # in its own scope: mmengine would warn that the config's default scope has none
            dict(objective or dict(type='AugmentedLagrangian'), _scope_=OBJECTIVES.scope),
            default_args=dict(budget_ms=self.budget.budget_ms),
        )
        self.data_preprocessor = self.architecture.data_preprocessor
        options = self.supernet.all_options()
        self.scores = PathScores(
            [(name, choice) for name, choices in options.items() for choice in choices], memory
        )
        self.ramp: BudgetRamp | None = None  # the loop knows how many steps there are

    @property
    def supernet(self) -> SuperNet:
        """The SuperNet inside ``architecture``."""
        return self.architecture.get_submodule(self._place)

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

    def weight_step(
        self, batches: Iterator, wrapper: OptimWrapper, path: Path | None = None
    ) -> dict[str, Tensor]:
        """Take one step on the weights; architecture parameters stay as they are.

        Args:
            batches: As many are drawn as the wrapper accumulates gradients over.
            wrapper: Optimiser of the weights.
            path: The network whose weights are trained, where the SuperNet has hard paths.

        Returns:
            The last batch's losses, by name.
        """
        with self._only(self.weight_parameters()), self.supernet.on(path):
            return self._step(batches, wrapper, self.losses, lambda task: task)

    def warm_up_step(
        self,
        batches: Iterator,
        wrapper: OptimWrapper,
        networks: Sequence[tuple[Path, Widths]],
        small: bool = False,
    ) -> dict[str, Tensor]:
        """Take one step on the weights of several networks, on the same images.

        Args:
            batches: As many are drawn as the wrapper accumulates gradients over.
            wrapper: Optimiser of the weights.
            networks: Path and hidden widths of each.
            small: With images of half the height and width.

        Returns:
            The last batch's losses, by name: the first network's terms, and the mean of all.

        Raises:
            ConfigError: Small images of a model whose targets have places in the image.
        """

        def judge(batch) -> Judged:
            seen, judged = self.prepare(batch, small), []
            for path, widths in networks:
                with self.supernet.on(path), at_widths(widths):
                    judged.append(self.losses_on(*seen))
            return torch.stack([task for task, _ in judged]).mean(), judged[0][1]

        used = {}
        for _, widths in networks:
            used |= {block: max(width, used.get(block, 0)) for block, width in widths.items()}
        with self._only(self.weight_parameters()), at_widths(used):  # what is unused stays as it is
            return self._step(batches, wrapper, judge, lambda task: task)

    def architecture_step(
        self, batches: Iterator, wrapper: OptimWrapper, paths: Sequence[Path] = ()
    ) -> dict[str, Tensor]:
        """Take one step on the architecture; weights and BN statistics stay as they are.

        Args:
            batches: As many are drawn as the wrapper accumulates gradients over.
            wrapper: Optimiser of the architecture parameters.
            paths: Networks to judge, on the same images, where the SuperNet has hard paths.

        Returns:
            The last batch's losses, by name; with paths, their means.
        """
        budget_ms, supernet = self.ramp.budget_ms, self.supernet
        self.objective.budget_ms = budget_ms or self.ramp.target_ms

        def objective(task: Tensor) -> Tensor:
            if budget_ms is None:  # nothing costs anything yet
                return task
            return self.objective(task, supernet.expected_latency_ms())

        def judge(batch) -> Judged:
            return self._judge(batch, paths) if paths else self.losses(batch)

        with frozen_statistics(self), self._only(supernet.searched_parameters()):
            log = self._step(batches, wrapper, judge, objective)
        if budget_ms is not None and (supernet.widths_move or supernet.sampling != 'hard'):
            self.objective.update(float(supernet.expected_latency_ms().detach()))
        return log

    def weigh(self) -> None:
        """Let the probabilities of hard paths follow from scores and the price of latency."""
        supernet = self.supernet
        if supernet.sampling != 'hard':
            return
        values = values_of(supernet, self.scores)
        if self.objective.meets_budget and self.ramp.budget_ms and not supernet.widths_move:
            budget_ms = self.ramp.budget_ms
            self.objective.settle(price_for(supernet, values, budget_ms) * budget_ms)
            price = float(self.objective.multiplier) / budget_ms
        else:
            price = self.price_per_ms
        supernet.believe(chances_at(supernet, values, price))

    @property
    def price_per_ms(self) -> float:
        """What a ms of latency costs in loss, by lambda."""
        if self.ramp.budget_ms is None:
            return 0.0
        expected_ms = float(self.supernet.expected_latency_ms().detach())
        return float(self.objective.multiplier) / expected_ms

    def price(self) -> dict[str, float]:
        """Return what a reader of a decision wants to know of lambda at this moment."""
        objective = self.objective
        return dict(
            multiplier=float(objective.multiplier),
            multiplier_average=float(objective.average),
            budget_ms=self.ramp.budget_ms,
            expected_ms=float(self.supernet.expected_latency_ms().detach()),
        )

    @property
    def steady(self) -> bool:
        """Whether anything may be decided: lambda is steady, at the budget of the moment.

        A lambda that has overshot stands still, too, where it turns; E[lat] tells.
        """
        return self._within(NEAR) and self.objective.steady

    @property
    def at_rest(self) -> bool:
        """Whether, besides, the budget does not fall any more, and is met within 1 %."""
        return self.steady and self.ramp.at_last and self._within(0.01)

    def _within(self, share: float) -> bool:
        """Whether there is a budget, and E[lat] is near it."""
        if self.ramp.budget_ms is None:
            return False
        expected_ms = float(self.supernet.expected_latency_ms().detach())
        return abs(expected_ms / self.ramp.budget_ms - 1) <= share

    def derived_path(self) -> dict[str, str]:
        """Return the path that is derived now: the best one by the scores within the budget."""
        supernet = self.supernet
        values = values_of(supernet, self.scores, mean=True)
        budget_ms = self.ramp.budget_ms or self.budget.largest_ms
        return exact_paths(supernet, values, budget_ms, self.price_per_ms, supernet.leaning)[0]

    @torch.no_grad()
    def task_losses(self, batches: Sequence, path: Path | None = None) -> Tensor:
        """Return the task loss on each of some batches (mean over ranks), changing nothing.

        Nothing is drawn, nothing dropped, and in training mode the norms use the batch's
        statistics, as in an architecture step.

        Args:
            batches: To be judged on.
            path: What the SuperNet is meanwhile; None for what is most probable.
        """
        layers = self.supernet.layers().values()
        for layer in layers:
            layer.deterministic = True
        with frozen_statistics(self), without_dropout(self), self.supernet.on(path):
            losses = torch.stack([self._loss_again(*one).double() for one in enumerate(batches)])
        for layer in layers:
            layer.deterministic = False
        if is_distributed():
            all_reduce_params([losses], op='mean')
        return losses

    def task_loss(self, batches: Sequence, path: Path | None = None) -> float:
        """Return the mean of :meth:`task_losses`."""
        return float(self.task_losses(batches, path).mean())

    def val_step(self, data) -> list:
        """Predict; see :meth:`mmengine.model.BaseModel.val_step`."""
        return self.architecture.val_step(data)

    test_step = val_step

    def losses(self, batch) -> Judged:
        """Return the task loss of a batch (0-d), and its terms by name."""
        return self.losses_on(*self.prepare(batch))

    def prepare(self, batch, small: bool = False) -> tuple:
        """Return images, as networks get them, and targets of a batch.

        Networks are compared on the same ones: a data preprocessor may draw at random what it does
        to a batch (Mixup, another size).
        """
        images, samples = preprocess(self.data_preprocessor, batch)
        self._look_at(images)
        return channels_last(halved(images, samples) if small else images), samples

    def losses_on(self, images, samples: list | None) -> Judged:
        """Return the task loss on what :meth:`prepare` returns (0-d), and its terms by name."""
        return self.parse_losses(self(images, samples, mode='loss'))

    def _loss_again(self, number: int, batch) -> Tensor:
        """The task loss of a batch, prepared as it was the last time."""
        with same_draws('prepared', number):
            seen = self.prepare(batch)
        return self.losses_on(*seen)[0]

    def _look_at(self, images) -> None:
        """Warn, once, of images whose latency is not what the table says."""
        size = tuple(images.shape[-2:]) if isinstance(images, Tensor) else None
        if self.other_size or size in (None, self._size):
            return
        self._size = size
        self.other_size = size_warning(self.table, self.supernet.space.resolution, size)
        if self.other_size:
            print_log(self.other_size, logger='current', level=logging.WARNING)

    def _judge(self, batch, paths: Sequence[Path]) -> Judged:
        """The mean loss of some paths on a batch; each one's teaches the scores."""
        seen, judged = self.prepare(batch), []
        with torch.set_grad_enabled(bool(self.supernet.searched_parameters())):
            for path in paths:
                with self.supernet.on(path):
                    judged.append(self.losses_on(*seen))
        tasks = torch.stack([task for task, _ in judged])
        told = tasks.detach().clone()
        if is_distributed():
            all_reduce_params([told], op='mean')
        self.scores.observe(paths, told)
        terms = {name: [log[name] for _, log in judged] for name in judged[0][1]}
        return tasks.mean(), {name: torch.stack(values).mean() for name, values in terms.items()}

    def _step(
        self,
        batches: Iterator,
        wrapper: OptimWrapper,
        judge: Callable[[object], Judged],
        objective: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        while True:
            with wrapper.optim_context(self):
                task, log = judge(next(batches))
            total = objective(task)
            log = {name: value.detach() for name, value in (log | dict(total=total)).items()}
            if is_distributed():  # so that all tell the same, and stop at the same
                all_reduce_dict(log, op='mean')
            _check_finite(log)
            if not total.requires_grad:  # no width to move: there was something to learn only
                return log
            wrapper.backward(wrapper.scale_loss(total))
            if wrapper.should_update():
                break
        if is_distributed():
            average_gradients(p for group in wrapper.param_groups for p in group['params'])
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


def _place_of_supernet(architecture: nn.Module) -> str:
    """The name of the SuperNet inside a network."""
    found = [name for name, m in architecture.named_modules() if isinstance(m, SuperNet)]
    if len(found) != 1:
        raise ConfigError(
            f'model.architecture holds {len(found)} SuperNets; expected exactly one, usually '
            "as backbone=dict(type='SuperNet', space=...)."
        )
    return found[0]


def _check_finite(log: dict[str, Tensor]) -> None:
    bad = [name for name, value in log.items() if not math.isfinite(float(value))]
    if bad:
        # 'loss' and 'total' are sums; the term that spoiled them says more.
        term = next((name for name in bad if name not in ('loss', 'total')), bad[0])
        raise SearchError(f'The loss is not finite: {term} = {float(log[term])}.')
