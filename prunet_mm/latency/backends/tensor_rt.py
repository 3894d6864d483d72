"""The model exported to ONNX and run by TensorRT: by its Python API, or else by ``trtexec``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from prunet_mm.errors import ConfigError
from prunet_mm.latency.backends.base import Backend


class TensorRT(Backend):
    """NVIDIA TensorRT, as a CUDA graph where ``trtexec`` runs it."""

    name = 'tensorrt'
    packages = ('onnx', 'onnxscript')
    devices = ('cuda',)
    reads_onnx = True

    @classmethod
    def require(cls, device: str, dtype: str = 'float32') -> None:
        super().require(device, dtype)
        if find_spec('tensorrt') is None and shutil.which('trtexec') is None:
            raise ConfigError(
                'backend tensorrt needs tensorrt, which is not installed, and there is no trtexec '
                'on PATH either: pip install tensorrt'
            )

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        raise ConfigError('backend tensorrt: not yet')
