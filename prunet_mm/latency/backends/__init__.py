"""Ways to run a model, by the name that the command line has for them. Imports no torch."""

from collections.abc import Iterable

from prunet_mm.errors import ConfigError
from prunet_mm.latency.backends.base import Backend
from prunet_mm.latency.backends.channels_last import ChannelsLast
from prunet_mm.latency.backends.cuda_graph import CudaGraph
from prunet_mm.latency.backends.eager import Eager
from prunet_mm.latency.backends.inductor import Inductor
from prunet_mm.latency.backends.onnx_runtime import OnnxRuntime
from prunet_mm.latency.backends.open_vino import OpenVino
from prunet_mm.latency.backends.tensor_rt import TensorRT
from prunet_mm.latency.backends.torch_script import TorchScript

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

__all__ = ['BACKENDS', 'Backend', 'require']


def require(names: Iterable[str], device: str, dtype: str = 'float32') -> None:
    """Refuses backends that do not exist or that this machine cannot run.

    Raises:
        ConfigError: See `Backend.require`.
    """
    for name in names:
        if name not in BACKENDS:
            raise ConfigError(f'no backend "{name}", known are {", ".join(BACKENDS)}')
        BACKENDS[name].require(device, dtype)
