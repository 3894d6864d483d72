"""Ways to run a model, by the name that the command line has for them. Imports no torch."""

from prunet_mm.errors import ConfigError
from prunet_mm.timing.backends.base import Backend
from prunet_mm.timing.backends.onnx_runtime import OnnxRuntime
from prunet_mm.timing.backends.open_vino import OpenVino
from prunet_mm.timing.backends.tensor_rt import TensorRT
from prunet_mm.timing.backends.torch_backends import (
    ChannelsLast,
    CudaGraph,
    Eager,
    Inductor,
    TorchScript,
)

BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend
    for backend in (
        Eager,
        ChannelsLast,
        TorchScript,
        Inductor,
        CudaGraph,
        OnnxRuntime,
        OpenVino,
        TensorRT,
    )
}

__all__ = ['BACKENDS', 'Backend', 'find_backend']


def find_backend(name: str) -> type[Backend]:
    """The backend of this name; raises a `ConfigError` where there is none."""
    if name not in BACKENDS:
        raise ConfigError(f'no backend {name!r}, known are {", ".join(BACKENDS)}')
    return BACKENDS[name]
