"""What is known of a model without timing it: parameters, multiply-accumulates, image size."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of one image: convolutions, linear layers, matrix products.

    Counted as torch runs them, without computing anything where the model allows that.

    Args:
        model: In eval mode; stays as it is.
        shape: (C, H, W) of the image.
    """
    try:
        return _count(copy.deepcopy(model).to('meta'), torch.empty(1, *shape, device='meta'))
    except Exception:  # it makes tensors on the CPU, or looks at values
        return _count(model, torch.randn(1, *shape))


@torch.no_grad()
def _count(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


def input_size(cfg: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of the images behind the test pipeline; None where it does not say.

    Where the pipeline keeps the ratio of the sides, this is the largest that a landscape photo
    becomes, padded as the config says.
    """
    size = None
    for transform in _pipeline(cfg):
        if transform.get('type') == 'CenterCrop':
            size = _pair(transform['crop_size'])
        elif transform.get('type') == 'Resize' and 'scale' in transform:
            columns, rows = _pair(transform['scale'])
            size = sorted([rows, columns]) if transform.get('keep_ratio') else (rows, columns)
        elif transform.get('type') == 'Pad' and transform.get('pad_to_square') and size:
            size = (max(size),) * 2
    divisor = _preprocessor(cfg).get('pad_size_divisor') or 1
    return size and tuple(-(-side // divisor) * divisor for side in size)


def _pipeline(cfg: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:  # a wrapper
        dataset = dataset['dataset']
    return dataset.get('pipeline') or cfg.get('test_pipeline') or ()


def _preprocessor(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    model = cfg.get('model') or {}
    return model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
