"""The model exported to ONNX and run by ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.timing.backends.base import Backend

PROVIDERS = dict(cpu='CPUExecutionProvider', cuda='CUDAExecutionProvider')


class OnnxRuntime(Backend):
    """ONNX Runtime, with inputs and outputs where torch has them: nothing is copied."""

    name = 'onnxruntime'
    packages = ('onnxruntime', 'onnx', 'onnxscript')
    dtypes = ('float32', 'float16')

    @classmethod
    def require(cls, device: str, dtype: str = 'float32') -> None:
        super().require(device, dtype)
        import onnxruntime

        if _provider(device) not in onnxruntime.get_available_providers():
            raise ConfigError(
                f'this onnxruntime does not run on {device}: '
                'pip uninstall onnxruntime, then pip install onnxruntime-gpu'
            )

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import numpy as np
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Its idle threads would spin on the cores that the next target is timed on.
        options.add_session_config_entry('session.force_spinning_stop', '1')
        options.log_severity_level = 3  # errors
        provider = _provider(self.device)
        number = {} if self.device == 'cpu' else dict(device_id=inputs[0].device.index)
        session = onnxruntime.InferenceSession(
            onnx_bytes(model, inputs[0], dtype), options, providers=[(provider, number)]
        )
        if provider not in session.get_providers():  # without an error it takes the CPU instead
            raise PrunetError(f'onnxruntime cannot start its {provider}: see what it printed')
        name = session.get_inputs()[0].name
        # Once with arrays, to see the outputs' shapes.
        arrays = session.run(None, {name: inputs[0].cpu().numpy()})
        outputs = [torch.from_numpy(array).to(self.device) for array in arrays]
        binding = session.io_binding()
        for output, tensor in zip(session.get_outputs(), outputs, strict=True):
            binding.bind_output(output.name, *_place(tensor, np))

        def run(x):
            binding.bind_input(name, *_place(x.contiguous(), np))
            session.run_with_iobinding(binding)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return run


def onnx_bytes(model, x, dtype) -> bytes:
    """A module as an ONNX model for inputs of the shape of ``x``, weights of ``dtype``."""
    from prunet_mm.models.onnx import onnx_model

    model = copy.deepcopy(model).to('cpu', dtype)
    return onnx_model(model, x.to('cpu', dtype)).SerializeToString()


def _provider(device: str) -> str:
    return PROVIDERS[device.partition(':')[0]]


def _place(tensor, np) -> tuple:
    """Where a tensor is, as ONNX Runtime asks for it."""
    kind = getattr(np, str(tensor.dtype).removeprefix('torch.'))
    return (
        tensor.device.type,
        tensor.device.index or 0,
        kind,
        tuple(tensor.shape),
        tensor.data_ptr(),
    )
