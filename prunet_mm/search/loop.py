"""The loop of a search: weights and architecture in turn, each on its own part of the data."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dist import (
    all_reduce,
    get_comm_device,
    get_rank,
    get_world_size,
    is_distributed,
)
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import BaseLoop

from prunet_mm.datasets.loader_check import collate_function
from prunet_mm.datasets.streams import build_stream, sample_batch, split_dataset
from prunet_mm.errors import ConfigError, DataError, SearchError
from prunet_mm.search.interrupt import Interrupt
from prunet_mm.search.loader import require_loader
from prunet_mm.search.ramp import BudgetRamp

STREAMS = ('weights', 'architecture')


class SearchData:
    """The training set, split in two: a part for the weights and a part for the architecture.

    Args:
        config: ``dataset``, ``batch_size`` and ``num_workers`` as in any mmengine data loader.
        architecture_fraction: Share of the training set that is held out for the architecture.
        architecture_batch_size: Batch size of the architecture steps.
        seed: Of the split, the order of the images and their augmentation.
    """

    def __init__(
        self,
        config: dict,
        architecture_fraction: float,
        architecture_batch_size: int | None,
        seed: int,
    ) -> None:
        require_loader(config)
        try:
            self.dataset = DATASETS.build(config['dataset'])
            if hasattr(self.dataset, 'full_init'):
                self.dataset.full_init()
        except (OSError, RuntimeError) as error:  # what data sets raise that find no images
            text = ' '.join(str(error).split())
            raise DataError(f'train_dataloader.dataset cannot be loaded: {text}') from error
        parts = split_dataset(self.dataset, architecture_fraction, seed)
        self.indices = dict(zip(STREAMS, parts, strict=True))
        self.batch_size = dict(
            weights=config['batch_size'],
            architecture=architecture_batch_size or config['batch_size'],
        )
        self.num_workers = config.get('num_workers', 0)
        self.collate = collate_function(config, 'train_dataloader')
        self.seed = seed

    def __len__(self) -> int:
        """Batches in one pass over the weights' part, as schedulers count epochs."""
        return -(-len(self.indices['weights']) // self.batch_size['weights'])

    def stream(self, name: str, batches_done: int) -> Iterator:
        """Return the endless batches of a stream from a position on."""
        return build_stream(
            self.dataset,
            self.indices[name],
            batch_size=self.batch_size[name],
            num_workers=self.num_workers,
            seed=self.seed,
            stream=name,
            start=batches_done * self.batch_size[name] * get_world_size(),
            collate=self.collate,
        )

    def probe(self, part: str, count: int, step: int = 0, batch_size: int | None = None) -> list:
        """Return some batches of a part for a test outside the streams; they depend on ``step``.

        All processes together have the images that one process with larger batches would have.
        """
        return [
            sample_batch(
                self.dataset,
                self.indices[part],
                batch_size=batch_size or self.batch_size[part],
                seed=self.seed,
                stream=f'probe of {part}',
                step=step * count + i,
                collate=self.collate,
            )
            for i in range(count)
        ]


@LOOPS.register_module()
class SearchLoop(BaseLoop):
    """Trains the weights alone first, then weights and architecture in turn.

    An iteration is one step on the weights and, after the warm-up, one on the architecture every
    ``architecture_interval`` iterations. All randomness of an iteration (order of the images,
    augmentation, drop-out, sampling noise) is a function of the seed, the iteration and the rank,
    so a resumed search repeats an uninterrupted one exactly. Hooks find what they need here:
    :attr:`progress`, :attr:`stepped`, :meth:`record`.

    Args:
        runner: The runner.
        dataloader: The training set; see :class:`SearchData`.
        max_iters: Iterations in total.
        warmup_iters: Of these, iterations on the weights alone. Each trains some networks;
            see :meth:`SuperNet.deal`.
        architecture_fraction: Share of the training set held out for the architecture.
        architecture_batch_size: Batch size of the architecture steps; default: the weights'.
        architecture_interval: Iterations from one architecture step to the next.
        networks: Networks that a step of the warm-up trains on the same images, at least two.
        small_images: Share of the warm-up in which a classifier's images are halved in height and
            width, which is three to four times as quick per step.
        paths: Networks that an architecture step judges on the same images, where the SuperNet has
            hard paths; at least two.
        exploration: Share of the choices in a path that are drawn without regard to what is known.
        ramp: Shares of the architecture steps; see :class:`BudgetRamp`.

    Raises:
        ConfigError: An impossible value.
    """

    def __init__(
        self,
        runner,
        dataloader: dict,
        max_iters: int,
        warmup_iters: int,
        architecture_fraction: float = 0.2,
        architecture_batch_size: int | None = None,
        architecture_interval: int = 1,
        networks: int = 3,
        small_images: float = 0.0,
        paths: int = 4,
        exploration: float = 0.1,
        ramp: dict | None = None,
    ) -> None:
        if not 0 <= warmup_iters < max_iters:
            raise ConfigError(
                f'train_cfg: warmup_iters={warmup_iters} leaves nothing of '
                f'max_iters={max_iters} for the architecture.'
            )
        if architecture_interval < 1:
            raise ConfigError(
                f'train_cfg.architecture_interval: found {architecture_interval}, expected 1 or '
                'more iterations.'
            )
        if not 0 < architecture_fraction < 1:
            raise ConfigError(
                f'train_cfg.architecture_fraction: found {architecture_fraction}, expected a '
                'fraction between 0 and 1.'
            )
        if networks < 2 or paths < 2 or not 0 <= exploration < 1:
            raise ConfigError(
                f'train_cfg: found networks={networks}, paths={paths}, exploration={exploration}; '
                'expected at least 2 networks, at least 2 paths, to be compared, and an '
                'exploration of 0 or more, below 1.'
            )
        if not 0 <= small_images < 1:
            raise ConfigError(
                f'train_cfg.small_images: found {small_images}, expected a share of the warm-up, '
                'below 1: it has to end at full size.'
            )
        data = SearchData(dataloader, architecture_fraction, architecture_batch_size, runner.seed)
        super().__init__(runner, data)
        self._max_iters, self.warmup_iters = max_iters, warmup_iters
        self.interval, self.small_iters = architecture_interval, small_images * warmup_iters
        self.networks, self.paths, self.exploration = networks, paths, exploration
        steps = -(-(max_iters - warmup_iters) // architecture_interval)
        runner.model.ramp = BudgetRamp(runner.model.budget.targets_ms, steps, **(ramp or {}))
        self.val_interval = 0
        self._epoch = self._iter = 0
        self.drawn = dict.fromkeys(STREAMS, 0)
        self.stepped = False
        self.events: list[dict] = []

    @property
    def iter(self) -> int:
        """Iterations done."""
        return self._iter

    @property
    def max_iters(self) -> int:
        """Iterations in total."""
        return self._max_iters

    @property
    def epoch(self) -> int:
        """Always 0: the search counts iterations."""
        return self._epoch

    @property
    def max_epochs(self) -> int:
        """Always 1: the whole search is one epoch to mmengine's hooks."""
        return 1

    @property
    def progress(self) -> float:
        """Fraction of the architecture phase that lies behind, from 0 to 1.

        In ``after_train_iter`` the iteration at hand counts as done.
        """
        phase = self._max_iters - self.warmup_iters
        return min(max((self._iter + 1 - self.warmup_iters) / phase, 0.0), 1.0)

    @property
    def architecture_steps(self) -> int:
        """Architecture steps done."""
        return -(-max(self._iter - self.warmup_iters, 0) // self.interval)

    def record(self, event: dict) -> None:
        """Note an event (a removal, a move) for this step's row of the history."""
        self.events.append(event)

    def take_events(self) -> list[dict]:
        """Return the events noted since the last call."""
        events, self.events = self.events, []
        return events

    def run(self) -> torch.nn.Module:
        """Run the search from where it stands to its end.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once a checkpoint is written.
        """
        self._streams = {name: self.dataloader.stream(name, self.drawn[name]) for name in STREAMS}
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        try:
            with Interrupt() as interrupt:
                while self._iter < self._max_iters:
                    self._run_iter()
                    if _anywhere(interrupt.asked):
                        self._stop()
        finally:
            for stream in self._streams.values():
                stream.close()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _run_iter(self) -> None:
        runner, model = self.runner, self.runner.model
        wrappers = runner.optim_wrapper
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=None)
        self._seed()
        warming = self._iter < self.warmup_iters
        rng = random.Random(f'{runner.seed} {self._iter}')  # of networks, equal on all ranks
        self.stepped = not warming and (self._iter - self.warmup_iters) % self.interval == 0
        try:
            batches, wrapper = self._draw('weights'), wrappers['weights']
            if warming:
                networks = model.supernet.deal(rng, self.networks)
                small = self._iter < self.small_iters
                log = model.warm_up_step(batches, wrapper, networks, small)
            else:
                log = model.weight_step(batches, wrapper, self._any_path(rng))
            outputs = {f'weights/{name}': value for name, value in log.items()}
            if self.stepped:
                paths = self._paths(rng, self.paths)
                batches = self._draw('architecture')
                log = model.architecture_step(batches, wrappers['architecture'], paths)
                model.weigh()
                outputs |= {f'architecture/{name}': value for name, value in log.items()}
        except SearchError as error:
            raise SearchError(
                f'Step {self._iter + 1}: {error} Checkpoints of earlier steps in '
                f'{runner.work_dir} are intact: lower the learning rate and resume.'
            ) from error
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=None, outputs=outputs)
        self._iter += 1

    def _paths(self, rng: random.Random, count: int) -> list[dict[str, str]]:
        """Draw paths: evenly until the budget begins to fall, then by what is believed."""
        supernet = self.runner.model.supernet
        if supernet.sampling != 'hard':
            return []
        exploration = self.exploration if self.runner.model.ramp.budget_ms else 1.0
        networks = math.prod(map(len, supernet.options().values()))
        return [supernet.draw_path(rng, exploration) for _ in range(min(count, networks))]

    def _any_path(self, rng: random.Random) -> dict[str, str] | None:
        """Draw a path for the weights, evenly from all that is left.

        Drawn by what is believed, the beliefs would come true: what is trained more looks better.
        In a trained network all is trained already, and most of what could be drawn would ruin it.
        """
        supernet = self.runner.model.supernet
        if supernet.sampling != 'hard':
            return None
        if supernet.importance:
            return supernet.draw_path(rng, self.exploration)
        return {name: rng.choice(options) for name, options in supernet.all_options().items()}

    def _seed(self) -> None:
        state = np.random.SeedSequence([self.runner.seed, self._iter, get_rank()])
        seed = int(state.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _draw(self, name: str) -> Iterator:
        while True:
            batch = next(self._streams[name])
            self.drawn[name] += 1
            yield batch

    def _stop(self) -> None:
        """Have a checkpoint of the step just done written, and leave."""
        self.runner.call_hook('after_interrupt')
        raise KeyboardInterrupt(f'interrupted after step {self._iter}')


def _anywhere(asked: bool) -> bool:
    """Whether any rank was asked to stop, so that all of them stop after the same step."""
    if not is_distributed():
        return asked
    flag = torch.tensor(float(asked), device=get_comm_device())
    all_reduce(flag, op='max')
    return bool(flag)
