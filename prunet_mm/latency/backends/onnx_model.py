"""Models as ONNX: files that are targets themselves, and modules exported in memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model in a file.

    Attributes:
        path: Where it is.
    """

    path: Path


def onnx_bytes(model, inputs: Sequence, dtype) -> bytes:
    """A module as an ONNX model for this shape of input, or what an ONNX file holds.

    Args:
        model: A module, or an `OnnxFile`.
        inputs: What the module will be called with; the first one's shape counts.
        dtype: What weights and activations of an exported module are.
    """
    if isinstance(model, OnnxFile):
        return model.path.read_bytes()
    import copy

    import torch

    x, file = inputs[0].to('cpu', dtype), io.BytesIO()
    model = copy.deepcopy(model).to('cpu', dtype)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore')
        torch.onnx.export(model, (x,), dynamo=True, verbose=False).save(file)
    return file.getvalue()
