"""Validation in several processes judges what a checkpoint holds."""

from __future__ import annotations

import torch.distributed as dist
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SameBuffersHook(Hook):
    """Gives every process the buffers of the first one before a validation.

    Each process has seen images of its own, so the statistics in its norms differ from those of the
    others. A checkpoint holds the first one's, and only with them in all processes is the score
    that is logged that of the checkpoint. mmengine's ``SyncBuffersHook`` averages instead, after
    the checkpoint of an iteration is written, and leaves out the averaged weights of `EMAHook`.
    """

    priority = 'LOW'  # after `EMAHook` has put its weights and buffers in

    def before_val_epoch(self, runner) -> None:
        """Broadcast them."""
        if is_distributed():
            for buffer in runner.model.buffers():
                dist.broadcast(buffer, src=0)
