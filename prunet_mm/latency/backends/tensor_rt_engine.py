"""TensorRT's Python API, of versions 8.6 to 10."""

from __future__ import annotations

from collections.abc import Callable

import tensorrt as trt
import torch
from torch import Tensor

from prunet_mm.errors import PrunetError
from prunet_mm.latency.backends.cuda_graph import captured

TYPES = {
    torch.float32: trt.float32,
    torch.float16: trt.float16,
    torch.bfloat16: getattr(trt, 'bfloat16', None),  # from 9 on
}
FLAGS = {torch.float16: 'FP16', torch.bfloat16: 'BF16'}


def run_engine(data: bytes, x: Tensor, dtype: torch.dtype) -> Callable[[Tensor], object]:
    """Builds an engine and makes a callable of it.

    Args:
        data: An ONNX model of fixed shapes in float32.
        x: An input, on the device.
        dtype: What inputs and outputs are, and layers may be computed in.

    Raises:
        PrunetError: This TensorRT does not know the type, or cannot build the model.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    with torch.cuda.device(x.device):
        engine = trt.Runtime(logger).deserialize_cuda_engine(_plan(data, dtype, logger))
        context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
    outputs = []
    for name in names:
        if not is_input[name]:
            shape = tuple(engine.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=dtype, device=x.device))
            context.set_tensor_address(name, outputs[-1].data_ptr())
    (input_name,) = (name for name in names if is_input[name])

    def run(image: Tensor) -> object:
        context.set_tensor_address(input_name, image.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return captured(run, x.contiguous().clone())


def _plan(data: bytes, dtype: torch.dtype, logger: trt.Logger) -> object:
    """The serialized engine."""
    if TYPES[dtype] is None:
        raise PrunetError(f'TensorRT {trt.__version__} has no {dtype}')
    builder = trt.Builder(logger)
    # What version 8 has to be told, and 10 does anyway.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        raise PrunetError(
            f'TensorRT {trt.__version__} cannot read it: {parser.get_error(0).desc()}'
        )
    config = builder.create_builder_config()
    if dtype in FLAGS:
        config.set_flag(getattr(trt.BuilderFlag, FLAGS[dtype]))
        for index in range(network.num_inputs):
            network.get_input(index).dtype = TYPES[dtype]
        for index in range(network.num_outputs):
            network.get_output(index).dtype = TYPES[dtype]
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PrunetError(f'TensorRT {trt.__version__} cannot build an engine of it')
    return plan
