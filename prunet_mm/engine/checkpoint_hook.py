"""mmengine's checkpoint hook, with files that are complete before older ones are deleted."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from prunet_mm.engine.checkpoint import mark_latest, use_safe_loading
from prunet_mm.errors import ConfigError


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """Saves like mmengine's `CheckpointHook`, but a run killed at any moment can be resumed.

    mmengine deletes the oldest (or the previous best) checkpoint, then writes the new one in place,
    then writes which one is the latest. Here a checkpoint appears under its name in one step, is
    then marked as the latest, and only then are others deleted.

    Args:
        max_keep_ckpts: How many checkpoints to keep; the best ones do not count.
        **kwargs: As for mmengine's hook: interval, by_epoch, save_best, ...
    """

    def __init__(self, *, max_keep_ckpts: int = 2, **kwargs: Any) -> None:
        super().__init__(max_keep_ckpts=max_keep_ckpts, **kwargs)

    def before_run(self, runner: Runner) -> None:
        # Before mmengine loads anything, also in a training script other than ours.
        use_safe_loading()

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        # A run resumed in a copy of its folder has no business with the best one of the original.
        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._here(self.best_ckpt_path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[key] = path and self._here(path)

    def after_interrupt(self, runner: Runner) -> None:
        """Saves the step just done, whatever the interval, for a loop that was told to stop."""
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        self._save_checkpoint_with_step(runner, runner.iter, meta)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0:
            kept = [other for other in self.keep_ckpt_ids if other != step] + [step]
            # With those to be deleted: after a kill in between, mmengine deletes them on resume.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
            outdated = kept[: -self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :], self.max_keep_ckpts)
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            mark_latest(self.last_ckpt, runner.work_dir)
            for path in map(self._path, outdated):
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:  # nor is there a file backend, in a validation without training
            return
        unknown = [name for name in self.key_indicators if name not in ('auto', *metrics)]
        if unknown:
            raise ConfigError(
                f'default_hooks.checkpoint.save_best is {unknown[0]!r}, which the evaluation does '
                f'not find, but {", ".join(metrics)}: name one of these and go on with --resume'
            )
        backend = self.file_backend
        self.file_backend = late = _LateRemovals(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best.update(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in late.outdated:
            if path not in best:
                backend.remove(path)

    def _here(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, os.path.basename(path))

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))


class _LateRemovals:
    """A file backend that only notes, in :attr:`outdated`, what it is told to remove."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append(path)
