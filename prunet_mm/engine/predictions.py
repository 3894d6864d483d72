"""Predictions as a file that loads without executing code."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement

from prunet_mm.engine.files import write_atomic


class JsonPredictions(BaseMetric):
    """Takes the place of mmengine's `DumpResults`, which pickles.

    The file is a list with one object per image, each on a line of its own, that holds what the
    model's data sample does; tensors are nested lists.

    Args:
        path: The file to write.
    """

    default_prefix = 'predictions'  # there are no metrics that it could stand in front of

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        self.path = path

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps each sample as text."""
        self.results += [to_json(sample) for sample in data_samples]

    def compute_metrics(self, results: list[str]) -> dict:
        """Writes the file, in one step; there are no metrics."""
        write_atomic(self.path, '[\n' + ',\n'.join(results) + '\n]\n')
        return {}


def to_json(value: Any) -> str:
    """One line of JSON, with null for numbers that are not finite, which it does not have.

    What is neither data, tensors nor arrays is given by its class's name.
    """
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except ValueError:
        as_python_writes_them = json.dumps(value, default=_plain)
        return json.dumps(json.loads(as_python_writes_them, parse_constant=lambda _: None))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseDataElement):
        return value.to_dict()
    return value.tolist() if hasattr(value, 'tolist') else type(value).__name__
