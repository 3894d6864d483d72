"""mmengine's Runner, and a hook, for the screen."""

from __future__ import annotations

import datetime
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from prunet_mm.engine.screen import Screen
from prunet_mm.timing.device import device_name


class ScreenRunner(Runner):
    """A Runner that shows what a person needs, inside of :func:`prunet_mm.engine.screen.screen`."""

    conclusion = ''  # what follows the last step, where that is more than a checkpoint

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """See :meth:`mmengine.runner.Runner.build_logger`."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = _telling_once(handler)
        self.screen = Screen.current if self.rank == 0 else None
        if self.screen:
            self.screen.attach(logger)
            self.screen.show(f'config    {_short(self.cfg.filename)}\nlog       {logger.log_file}')
        elif Screen.current:  # the errors of other ranks are for the screen, too
            logger.handlers[0].setStream(Screen.current.out)
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model, in channels-last, in which convolutions compute the same, but faster."""
        return super().wrap_model(model_wrapper_cfg, model.to(memory_format=torch.channels_last))

    def register_hooks(self, *args, **kwargs) -> None:
        """See :meth:`mmengine.runner.Runner.register_hooks`."""
        super().register_hooks(*args, **kwargs)
        if self.screen:
            self.register_hook(ScreenHook(self.screen))

    def status(self) -> str:
        """What there is to say of a training, beside how far it is."""
        for name in ('train/loss', 'train/weights/loss'):
            if buffer := self.message_hub.log_scalars.get(name):
                return f'loss {buffer.mean(20):.4f}'
        return ''


class ScreenHook(Hook):
    """Tells what runs on what, how far it is, what came out and where it is.

    Args:
        screen: Where to.
    """

    priority = 'LOWEST'  # after whatever decides something

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._best: str | None = None

    def before_train(self, runner) -> None:
        """Tells what is trained."""
        self._introduce(runner, train=runner.train_loop, val=runner._val_loop)
        self._best = runner.message_hub.get_info('best_ckpt')
        if runner.iter:
            self.screen.show(f'goes on   after {self._where(runner, 0)}')
        elif runner._load_from:
            self.screen.show(f'weights   {runner._load_from}')

    def before_test(self, runner) -> None:
        """Tells what is tested."""
        self._introduce(runner, test=runner.test_loop)
        self.screen.show(f'weights   {runner._load_from or "random"}')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draws the live line."""
        done = (runner.iter + 1) / runner.max_iters

        def status() -> tuple[str, str]:
            seconds = int(runner.message_hub.get_info('eta', 0))
            left = f'{datetime.timedelta(seconds=seconds)} left'
            return self._where(runner), '  '.join(filter(None, (left, runner.status())))

        self.screen.progress('training', done, status)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draws the live line."""
        self._iterated('validating', runner.val_dataloader, batch_idx, step=1)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draws the live line."""
        self._iterated('testing', runner.test_dataloader, batch_idx)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Tells what an evaluation in between has found."""
        path = runner.message_hub.get_info('best_ckpt')
        best = ', the best so far' if path and path != self._best else ''
        self._best = path
        self.screen.show(f'{self._where(runner, 0)}: {", ".join(_told(metrics))}{best}')

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Tells what a test has found."""
        self.screen.clear()
        self.screen.show('\n'.join(f'result    {line}' for line in _told(metrics)))

    def after_train_epoch(self, runner) -> None:
        """Tells what takes its time after the last step."""
        if runner.conclusion:
            self.screen.clear()
            self.screen.show(runner.conclusion)

    def after_train(self, runner) -> None:
        """Tells where things are."""
        self.screen.clear()
        for what, name in (('last', 'last_ckpt'), ('best', 'best_ckpt')):
            if not runner.conclusion and (path := runner.message_hub.get_info(name)):
                self.screen.show(f'{what:9} {path}')

    def after_run(self, runner) -> None:
        """Tells what only the log has."""
        if count := self.screen.log_only:
            warnings = 'a warning' if count == 1 else f'{count} warnings'
            self.screen.show(
                f'log       has {warnings} of other packages: {runner.logger.log_file}'
            )

    def _introduce(self, runner, **loops) -> None:
        data = []
        for part, loop in loops.items():
            if dataset := getattr(getattr(loop, 'dataloader', None), 'dataset', None):
                count = f', {len(dataset):,} images' if hasattr(dataset, '__len__') else ''
                data.append(f'{type(dataset).__name__} {part}{count}')
        device, threads = get_device(), torch.get_num_threads()
        name = device_name(device) if device in ('cpu', 'cuda') else device
        on = f', {threads} thread{"s"[: threads - 1]}' if device == 'cpu' else ''
        if runner.world_size > 1:
            on += f', the first of {runner.world_size} processes'
        self.screen.show(f'data      {"; ".join(data)}\ndevice    {name}{on}')

    def _where(self, runner, ahead: int = 1) -> str:
        """The step or epoch, counting the one that hooks are called in the middle of."""
        loop = runner.train_loop
        if getattr(loop, 'max_epochs', 1) > 1:
            return f'epoch {loop.epoch + ahead:{len(str(loop.max_epochs))}}/{loop.max_epochs}'
        return f'step {loop.iter + ahead:{len(str(loop.max_iters))}}/{loop.max_iters}'

    def _iterated(self, phase: str, loader, batch_idx: int, step: float = 0.05) -> None:
        done, count = batch_idx + 1, len(loader)
        self.screen.progress(phase, done / count, lambda: (phase, f'{done}/{count} batches'), step)


def _telling_once(handler: logging.FileHandler) -> Callable[[logging.LogRecord], None]:
    """What a log that cannot be written does: logging prints a traceback for every line of it."""
    told = []

    def handle(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.Handler.handleError(handler, record)
        elif not told:
            told.append(error)
            print(
                f'warning: {handler.baseFilename} cannot be written: {error.strerror}; what was to '
                'be logged is lost',
                file=sys.stderr,
            )

    return handle


def _told(metrics: Mapping | None) -> Iterable[str]:
    for name, value in (metrics or {}).items():
        if name.endswith('_precision'):  # of one class: mmdet puts these into a table
            continue
        yield f'{name} {value:.4g}' if isinstance(value, (int, float)) else f'{name} {value}'


def _short(path: str) -> str:
    """A path as seen from the working directory, where it lies below that."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
