"""Whether a detector's parts fit each other and start from weights that are there.

Asked of a built model before it trains, since what is wrong would show as an error deep inside a
forward pass, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from prunet_mm.errors import CheckpointError, ConfigError

PIXELS = 256  # two cells at stride 128


def require_channels_fit(model: nn.Module) -> None:
    """Sends an empty image through a detector's backbone and neck, and compares.

    Compared are the neck's ``in_channels`` with the backbone's maps, and the head's ``in_channels``
    and the strides of its anchors with the neck's.

    Args:
        model: A detector of mmdet, or what wraps one: for several processes or for a search. A part
            that it does not have, or that does not say what it expects, is taken to fit.

    Raises:
        ConfigError: Says how many channels, at which stride, each stage has.
    """
    model, at = _detector(model)
    backbone, neck = getattr(model, 'backbone', None), getattr(model, 'neck', None)
    if backbone is None or neck is None:
        return
    maps = _run(backbone, _empty_image(backbone))
    if maps is None:
        return
    expected = getattr(neck, 'in_channels', None)
    if isinstance(expected, Sequence) and list(expected) != _channels(maps):
        raise ConfigError(
            f'{at}.neck.in_channels is {list(expected)}, but the backbone has '
            f'{_stages(backbone, maps)}: list the channels of those in {at}.backbone.out_indices'
        )
    maps, head = _run(neck, maps), getattr(model, 'bbox_head', None)
    if maps is not None and head is not None:
        _require_head_fits(head, maps, at)


def require_weights(model: nn.Module) -> None:
    """Looks for the checkpoint files from which parts of a model are to start.

    Args:
        model: Any model; only those of its modules count that mmengine will initialise.

    Raises:
        CheckpointError: Names the first that is missing and how to come by one.
    """
    for name, module in _detector(model)[0].named_modules():
        configs = getattr(module, 'init_cfg', None) or []
        for config in configs if isinstance(configs, list) else [configs]:
            path = str(config.get('checkpoint') or '')
            if path and '://' not in path and not Path(path).expanduser().is_file():
                raise CheckpointError(
                    f'{path}: there is no such checkpoint, from which the {name or "model"} is to '
                    'start: convert a released one with '
                    'tools/model_converters/gpunet_to_prunet.py, or name one of your own in '
                    'init_cfg.checkpoint'
                )


def _detector(model: nn.Module) -> tuple[nn.Module, str]:
    """The detector in a model, and where in the config it is."""
    while is_model_wrapper(model):
        model = model.module
    if hasattr(model, 'architecture'):  # that of a search
        return model.architecture, 'model.architecture'
    return model, 'model'


def _empty_image(backbone: nn.Module) -> Tensor:
    conv = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    weight = next(backbone.parameters())
    return weight.new_zeros(1, conv.in_channels if conv else 3, PIXELS, PIXELS)


def _run(part: nn.Module, inputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor] | None:
    """The maps that come out, or None where the part takes no such image."""
    training = part.training
    part.eval()
    try:
        with torch.no_grad():
            maps = part(inputs)
    except Exception:  # parts of others may ask for anything, and say so as the training starts
        return None
    finally:
        part.train(training)
    if not isinstance(maps, (list, tuple)) or any(getattr(x, 'ndim', 0) != 4 for x in maps):
        return None
    return maps


def _channels(maps: Sequence[Tensor]) -> list[int]:
    return [x.shape[1] for x in maps]


def _strides(maps: Sequence[Tensor]) -> list[int]:
    """Against the image; maps may be a pixel smaller than the stride says."""
    return [2 ** round(math.log2(PIXELS / x.shape[-1])) for x in maps]


def _stages(backbone: nn.Module, maps: Sequence[Tensor]) -> str:
    numbers = getattr(backbone, 'out_indices', ())
    if len(numbers) != len(maps):
        numbers = range(len(maps))
    return ', '.join(
        f'{channels} in stage {number} (stride {stride})'
        for number, channels, stride in zip(numbers, _channels(maps), _strides(maps), strict=True)
    )


def _require_head_fits(head: nn.Module, maps: Sequence[Tensor], at: str) -> None:
    expected = getattr(head, 'in_channels', None)
    if isinstance(expected, int) and {expected} != set(_channels(maps)):
        raise ConfigError(
            f'{at}.bbox_head.in_channels is {expected}, but the maps of {at}.neck have '
            f'{_channels(maps)}'
        )
    strides = getattr(getattr(head, 'prior_generator', None), 'strides', None)
    if strides is None:
        return
    expected = [max(pair) for pair in strides]
    powers_of_two = all(math.log2(stride).is_integer() for stride in expected)
    if powers_of_two and expected != _strides(maps):
        raise ConfigError(
            f'the anchors of {at}.bbox_head have strides {expected}, but the maps of {at}.neck '
            f'{_strides(maps)}: choose stages of the backbone whose strides double '
            f'({at}.backbone.out_indices), or set the strides of the anchors'
        )
