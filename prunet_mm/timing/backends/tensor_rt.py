"""The model exported to ONNX and run by TensorRT's Python API, of versions 8.6 to 10."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunet_mm.errors import PrunetError
from prunet_mm.timing.backends.base import Backend
from prunet_mm.timing.backends.onnx_runtime import onnx_bytes
from prunet_mm.timing.backends.torch_backends import captured

FLAGS = dict(float16='FP16', bfloat16='BF16')


class TensorRT(Backend):
    """NVIDIA TensorRT, its engine launched as a CUDA graph.

    Engines may compute each layer in ``dtype`` or in float32, whatever is faster; inputs and
    outputs are of ``dtype``.
    """

    name = 'tensorrt'
    packages = ('tensorrt', 'onnx', 'onnxscript')
    devices = ('cuda',)

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import tensorrt as trt
        import torch

        x = inputs[0]
        logger = trt.Logger(trt.Logger.ERROR)
        with torch.cuda.device(x.device):
            plan = _plan(onnx_bytes(model, x, torch.float32), dtype, logger)
            engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
            context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        input_name, outputs = None, []
        for name in names:
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                input_name = name
                continue
            shape = tuple(engine.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=dtype, device=x.device))
            context.set_tensor_address(name, outputs[-1].data_ptr())

        def run(image):
            context.set_tensor_address(input_name, image.data_ptr())
            context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return captured(run, x.contiguous().clone())


def _plan(data: bytes, dtype, logger) -> object:
    """The serialized engine of an ONNX model of fixed shapes in float32."""
    import tensorrt as trt

    name = str(dtype).removeprefix('torch.')
    kind = getattr(trt, name, None)  # bfloat16 from 9 on
    if kind is None:
        raise PrunetError(f'TensorRT {trt.__version__} has no {name}')
    builder = trt.Builder(logger)
    # What version 8 has to be told, and 10 does anyway.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        raise PrunetError(
            f'TensorRT {trt.__version__} cannot read it: {parser.get_error(0).desc()}'
        )
    config = builder.create_builder_config()
    if name in FLAGS:
        config.set_flag(getattr(trt.BuilderFlag, FLAGS[name]))
        for index in range(network.num_inputs):
            network.get_input(index).dtype = kind
        for index in range(network.num_outputs):
            network.get_output(index).dtype = kind
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PrunetError(f'TensorRT {trt.__version__} cannot build an engine of it')
    return plan
