"""How large the images are that a config feeds its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
