"""Models as ONNX: files that are targets themselves, and modules exported in memory."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.errors import ConfigError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model of one input, images (N, C, H, W), in a file.

    Attributes:
        path: Where it is from.
        proto: What it holds.
    """

    path: Path
    proto: ModelProto

    @classmethod
    def load(cls, path: str) -> OnnxFile:
        """Reads a file.

        Raises:
            ConfigError: It is missing, no ONNX model, or a model with other inputs.
        """
        if find_spec('onnx') is None:
            raise ConfigError(f'{path}: needs onnx, which is not installed: pip install onnx')
        import onnx

        try:
            file = cls(Path(path), onnx.load(path))
            onnx.checker.check_model(file.proto)
        except OSError as error:
            raise ConfigError(f'{path}: cannot be read: {error.strerror or error}') from error
        except Exception as error:  # protobuf's, or that of the checker
            raise ConfigError(f'{path}: is cut off or no ONNX model') from error
        kinds = [x.type.tensor_type.elem_type for x in file._inputs]
        if kinds != [onnx.TensorProto.FLOAT] or len(file._dims) != 4:
            raise ConfigError(f'{path}: expected one input (N, C, H, W) of type float32')
        return file

    def shape(self, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
        """(C, H, W) of an image; ``size`` says rows and columns where the file leaves them open.

        Raises:
            ConfigError: Neither says them, or they say different ones.
        """
        dims = [dim.dim_value or None for dim in self._dims[1:]]
        for index, side in enumerate(size or (), 1):
            if dims[index] not in (None, side):
                raise ConfigError(f'{self.path}: takes images of {dims[1]} x {dims[2]} px only')
            dims[index] = side
        if None in dims:
            raise ConfigError(f'{self.path} does not say how large images are: say --input-size')
        return tuple(dims)

    def fixed(self, shape: Sequence[int]) -> ModelProto:
        """The model for inputs (N, C, H, W) of this one shape.

        Raises:
            ConfigError: The file is for another one.
        """
        for dim, side in zip(self._dims, shape, strict=True):
            if dim.dim_value not in (0, side):
                expected = ' x '.join(str(dim.dim_value or '?') for dim in self._dims)
                found = ' x '.join(map(str, shape))
                raise ConfigError(f'{self.path}: takes inputs of {expected}, not {found}')
        file = OnnxFile(self.path, copy.deepcopy(self.proto))
        for dim, side in zip(file._dims, shape, strict=True):
            dim.dim_value = side
        return file.proto

    def params(self) -> int:
        """Numbers among the weights, those of folded norms not included."""
        from onnx import TensorProto

        integers = TensorProto.INT64, TensorProto.INT32
        weights = self.proto.graph.initializer
        return sum(math.prod(x.dims) for x in weights if x.data_type not in integers)

    def macs(self, shape: tuple[int, int, int]) -> int | None:
        """Multiply-accumulates of an image: convolutions, linear layers and matrix products.

        None where the shapes that this takes do not follow from that of the image.
        """
        from onnx import shape_inference

        batch = self._dims[0].dim_value or 1
        graph = shape_inference.infer_shapes(self.fixed((batch, *shape)), data_prop=True).graph
        sizes = {x.name: list(x.dims) for x in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = value.type.tensor_type.shape.dim
            sizes[value.name] = [dim.dim_value for dim in dims]
        try:
            products = list(_products(graph, sizes))
            macs = sum(math.prod(sizes[node.output[0]]) * length for node, length in products)
        except KeyError:
            return None
        return None if products and not macs else macs // batch

    @property
    def _inputs(self) -> list:
        """What the graph asks for; old files list their weights there, too."""
        weights = {x.name for x in self.proto.graph.initializer}
        return [x for x in self.proto.graph.input if x.name not in weights]

    @property
    def _dims(self) -> Sequence:
        return self._inputs[0].type.tensor_type.shape.dim


def _products(graph, sizes: dict[str, list[int]]) -> Iterator[tuple[NodeProto, int]]:
    """The nodes that multiply, each with the length of the sum behind one output."""
    for node in graph.node:
        if node.op_type == 'Conv':
            yield node, math.prod(sizes[node.input[1]][1:])
        elif node.op_type == 'MatMul':
            yield node, sizes[node.input[0]][-1]
        elif node.op_type == 'Gemm':
            transposed = any(x.name == 'transA' and x.i for x in node.attribute)
            yield node, sizes[node.input[0]][0 if transposed else -1]


def onnx_bytes(model, inputs: Sequence, dtype) -> bytes:
    """A module as an ONNX model for this shape of input, or what an ONNX file holds.

    Args:
        model: A module, or an `OnnxFile`.
        inputs: What the module will be called with; the first one's shape counts.
        dtype: What weights and activations of an exported module are.
    """
    if isinstance(model, OnnxFile):
        return model.fixed(inputs[0].shape).SerializeToString()
    import torch

    x = inputs[0].to('cpu', dtype)
    model = copy.deepcopy(model).to('cpu', dtype)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore')
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()
