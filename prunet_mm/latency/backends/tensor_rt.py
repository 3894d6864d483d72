"""The model exported to ONNX and run by TensorRT: by its Python API, or else by ``trtexec``."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from prunet_mm.errors import ConfigError
from prunet_mm.latency.backends.base import Backend
from prunet_mm.latency.backends.onnx_model import onnx_bytes


class TensorRT(Backend):
    """NVIDIA TensorRT, its engine launched as a CUDA graph.

    Engines may compute each layer in ``dtype`` or in float32, whatever is faster; inputs and
    outputs are of ``dtype``.
    """

    name = 'tensorrt'
    packages = ('onnx', 'onnxscript')
    devices = ('cuda',)
    reads_onnx = True

    @classmethod
    def require(cls, device: str, dtype: str = 'float32') -> None:
        super().require(device, dtype)
        if not _has_api() and shutil.which('trtexec') is None:
            raise ConfigError(
                'backend tensorrt needs tensorrt, which is not installed, and there is no trtexec '
                'on PATH either: pip install tensorrt'
            )

    @classmethod
    def versions(cls) -> dict[str, str]:
        name = 'tensorrt' if _has_api() else 'trtexec'
        if _has_api():
            return super().versions() | {name: import_module(name).__version__}
        banner = subprocess.run([name, '--help'], capture_output=True, text=True).stdout
        found = re.search(r'\[TensorRT v(\d+)', banner)
        return super().versions() | ({name: found[1]} if found else {})

    def convert(self, x, dtype):
        # What trtexec is given goes through a file.
        return super().convert(x, dtype) if _has_api() else x.to(dtype)

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        data = onnx_bytes(model, inputs, torch.float32)
        if _has_api():
            from prunet_mm.latency.backends.tensor_rt_engine import run_engine

            return run_engine(data, inputs[0], dtype)
        from prunet_mm.latency.backends.trtexec import TrtExec

        return TrtExec(data, dtype, int(self.device.partition(':')[2] or 0))


def _has_api() -> bool:
    return find_spec('tensorrt') is not None
