"""How long the processes of a run wait for each other before they take one for hung."""

from __future__ import annotations

import datetime

import torch.distributed as dist
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.distributed.distributed_c10d import _set_pg_timeout

STEP_S = 60.0  # between the slowest and the quickest process, within the steps of a training
PAUSE_S = 1800.0  # gloo's own, for what one process may do alone


@HOOKS.register_module()
class PatienceHook(Hook):
    """Ends a run with a sentence where a process hangs, and leaves one be that is only slow.

    A process that dies closes its connections, which the others notice at once. One that is
    stopped, or waits for something that never comes, they wait for as long as gloo's timeout says.
    In a training's steps, which all processes do alike, that is a minute here. It is half an hour
    where one of them may have more to do than the others: until the first step is done, which
    takes loaders and data sets that are read at first, from the end of an epoch to the first step
    of the next, in an evaluation, whose score one process computes, and after a checkpoint. Other
    backends than gloo have timeouts of their own, which end a process in another way.

    In place of the minute stands the config's ``env_cfg.dist_cfg.timeout``, in seconds.
    """

    priority = 'LOWEST'  # after a checkpoint is written

    def __init__(self) -> None:
        self._step_s = STEP_S
        self._pausing, self._checkpoint = False, None

    def before_run(self, runner) -> None:
        """Leave time for what is read at first."""
        distributed = runner.cfg.get('env_cfg', {}).get('dist_cfg') or {}
        self._step_s = distributed.get('timeout') or STEP_S
        self._pause()

    def before_train_epoch(self, runner) -> None:
        """Leave time for workers that start again."""
        self._pause()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Be patient with whoever wrote a checkpoint; from then on, as with any step."""
        checkpoint = runner.message_hub.get_info('last_ckpt')
        if checkpoint != self._checkpoint:
            self._checkpoint = checkpoint
            self._pause()
        if self._pausing:
            dist.barrier()
            self._wait_at_most(self._step_s)
            self._pausing = False

    def after_train_epoch(self, runner) -> None:
        """Leave time for checkpoints, and for what follows the last step."""
        self._pause()

    def before_val(self, runner) -> None:
        """Leave time for the process that computes the score."""
        self._pause()

    def _pause(self) -> None:
        if is_distributed() and dist.get_backend() == 'gloo':
            self._wait_at_most(max(PAUSE_S, self._step_s))
            self._pausing = True

    def _wait_at_most(self, seconds: float) -> None:
        _set_pg_timeout(datetime.timedelta(seconds=seconds))
