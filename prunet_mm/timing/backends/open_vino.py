"""The model exported to ONNX and run by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunet_mm.timing.backends.base import Backend
from prunet_mm.timing.backends.onnx_runtime import onnx_bytes

PRECISIONS = dict(float32='f32', float16='f16', bfloat16='bf16')


class OpenVino(Backend):
    """OpenVINO on the CPU; it takes and gives float32 whatever it computes in."""

    name = 'openvino'
    packages = ('openvino', 'onnx', 'onnxscript')
    devices = ('cpu',)

    def convert(self, x, dtype):
        return x.contiguous()

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import openvino
        import torch

        settings = dict(
            PERFORMANCE_HINT='LATENCY',
            INFERENCE_NUM_THREADS=self.threads,
            NUM_STREAMS=1,
            INFERENCE_PRECISION_HINT=PRECISIONS[str(dtype).removeprefix('torch.')],
        )
        core = openvino.Core()
        network = core.read_model(onnx_bytes(model, inputs[0], torch.float32))
        network.reshape(list(inputs[0].shape))
        request = core.compile_model(network, 'CPU', settings).create_infer_request()

        def run(x):
            request.infer([x.numpy()], share_inputs=True)
            outputs = [torch.from_numpy(tensor.data) for tensor in request.output_tensors]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return run
