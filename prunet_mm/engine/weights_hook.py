"""Refuses a checkpoint of something else before it is used."""

from __future__ import annotations

import shlex
from collections import OrderedDict

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from prunet_mm.datasets.report import some
from prunet_mm.errors import CheckpointError

BACKBONE = 'backbone.'


class FittingWeightsHook(Hook):
    """Checks that what ``load_from`` or ``resume`` has read is for this model and these classes.

    mmengine loads what fits, logs the rest and goes on with random weights. Here all has to fit,
    except where a training starts from a checkpoint: then the backbone has to, while necks and
    heads may be new, for other classes for instance. Says nothing about ``init_cfg``.

    A checkpoint names the classes that its outputs stand for. Where the data set has some of these
    names, it has to have all of them in the same order, or scores would be of other classes.

    Args:
        whole: Whether all has to fit, although nothing is resumed.
    """

    priority = 'HIGHEST'  # before hooks that take the checkpoint for a good one

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raises CheckpointError that names the file and the first key that does not fit."""
        path = runner._load_from or find_latest_checkpoint(runner.work_dir)
        # A file may hold weights alone; `EMAHook` expects them in their place.
        saved = checkpoint.setdefault('state_dict', dict(checkpoint))
        if runner._resume and not _has_progress(checkpoint):
            raise CheckpointError(
                f'{path}: holds no progress of a training, so none can be resumed: to start one '
                f'from its weights, set {shlex.quote(f"load_from={path}")} instead'
            )
        weights = OrderedDict((key.removeprefix('module.'), saved[key]) for key in saved)
        weights._metadata = getattr(saved, '_metadata', None)  # layers read their version there
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        everything = self.whole or runner._resume or not hasattr(model, 'backbone')
        try:
            why = misfit(model, weights, '' if everything else BACKBONE)
        except CheckpointError as error:  # a backbone of ours has found it first
            raise CheckpointError(f'{path}: {error}') from error
        if why:
            raise CheckpointError(
                f'{path}: these weights do not fit the model of the config: {why}'
            )
        if (self.whole or runner._resume) and (why := _other_classes(runner, checkpoint)):
            raise CheckpointError(f'{path}: {why}')


def _other_classes(runner: Runner, checkpoint: dict) -> str | None:
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    loop = getattr(runner, '_train_loop' if runner._resume else '_test_loop', None)
    loader = getattr(loop, 'dataloader', None)
    found = getattr(getattr(loader, 'dataset', None), 'metainfo', {}).get('classes')
    trained = meta.get('classes')
    if not trained or not found or not set(trained) & set(found) or list(trained) == list(found):
        return None
    return (
        f'was trained on the classes {some(trained)}, while the data set has {some(found)}: these '
        'have to be the same, in the same order'
    )


def _has_progress(checkpoint: dict) -> bool:
    meta = checkpoint.get('meta') or {}
    return 'message_hub' in checkpoint and {'epoch', 'iter'} <= meta.keys()


def misfit(model: nn.Module, weights: OrderedDict, prefix: str) -> str | None:
    """Why the weights under ``prefix`` are not those of the model, or None if they are."""
    own = model.state_dict()
    if not any(key.startswith(prefix) and key in own for key in weights):
        if any(key.startswith('network.') for key in weights):
            return "for NVIDIA's checkpoints there is tools/model_converters/gpunet_to_prunet.py"
        there = next(iter(weights), 'none')
        return f'the file has keys like {there!r}, and the model {next(iter(own))!r}'
    for key in list(weights):
        if not key.startswith(prefix):
            del weights[key]
    try:
        # Layers may know how to take up what older versions of them have saved.
        missing, extra = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        for key in (key for key in own if key in weights):
            shapes = [tuple(getattr(value[key], 'shape', ())) for value in (weights, own)]
            if shapes[0] != shapes[1]:
                return (
                    f'{key!r} has shape {shapes[0]}, but the model {shapes[1]}, as in another '
                    'network or with another number of classes'
                )
        return ' '.join(str(error).split())
    missing = [
        key for key in missing if key.startswith(prefix) and not key.endswith('num_batches_tracked')
    ]
    if missing:
        return f'{missing[0]!r} is missing' + _others(missing)
    return f'{extra[0]!r} is no part of it' + _others(extra) if extra else None


def _others(keys: list[str]) -> str:
    return f', and so are {len(keys) - 1} more keys' if len(keys) > 1 else ''
