"""A module as an ONNX model, for whoever writes a file of it or runs it at once."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from onnx import ModelProto


def onnx_model(module: torch.nn.Module, x: torch.Tensor, **options: Any) -> ModelProto:
    """Exports a module of one input by torch's exporter.

    Args:
        module: In eval mode, on the CPU.
        x: What it takes.
        options: Of `torch.onnx.export`.
    """
    with quiet():
        return torch.onnx.export(module, (x,), dynamo=True, verbose=False, **options).model_proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves out what torch says of its own insides; what it makes is checked anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    streams = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(), streams[0], streams[1]:
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
