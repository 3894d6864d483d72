"""The formats of exported files: each a way to write a network, and a way to run what it wrote."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from prunet_mm.deploy.network import Network
from prunet_mm.errors import ConfigError
from prunet_mm.models.onnx import onnx_model, quiet
from prunet_mm.version import __version__

INPUT = 'input'
BATCH = 'batch'
# The oldest one that torch's exporter writes without converting, so the most widely read.
OPSET = 18
OPSETS = range(17, 24)
METADATA_FILE = 'prunet_mm.json'

Call = Callable[[Tensor], list[Tensor]]


def to_onnx(network: Network, opset: int = OPSET) -> bytes:
    """The network as an ONNX model for any batch size, weights included.

    Raises:
        ConfigError: The model cannot be written with this opset.
    """
    import onnx

    model = onnx_model(
        network.module,
        _example(network),
        opset_version=opset,
        input_names=[INPUT],
        output_names=list(network.outputs),
        dynamic_shapes=({0: torch.export.Dim(BATCH)},),
    )
    graph = model.graph
    for value in [*graph.input, *graph.output]:
        # torch 2.6 names it by itself.
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    # Where each node is from: stack traces with paths of this machine.
    del graph.metadata_props[:]
    for part in [*graph.node, *graph.input, *graph.output]:
        del part.metadata_props[:]
    written = [entry.version for entry in model.opset_import if not entry.domain]
    if written != [opset]:
        raise ConfigError(
            f'--opset {opset}: this network was written with opset {written[0]} instead; '
            f'leave --opset out for {OPSET}'
        )
    if network.finish is not None:
        model = network.finish(model)
    # Runtimes refuse files of a newer format than they know, whatever is in them.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.graph.name = network.name
    model.producer_name, model.producer_version = 'prunet_mm', __version__
    onnx.helper.set_model_props(model, network.metadata)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def load_onnx(data: bytes) -> Call:
    """An ONNX model in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {INPUT: x.numpy()})]


def load_openvino(data: bytes) -> Call:
    """An ONNX model in OpenVINO, on the CPU."""
    import openvino

    core = openvino.Core()
    # Without it some CPUs compute in bfloat16.
    compiled = core.compile_model(
        core.read_model(data), 'CPU', dict(INFERENCE_PRECISION_HINT='f32')
    )
    outputs = compiled.outputs

    def call(x: Tensor) -> list[Tensor]:
        found = compiled([x.numpy()])
        return [torch.from_numpy(found[output].copy()) for output in outputs]

    return call


def to_torchscript(network: Network, opset: int = OPSET) -> bytes:
    """The network as a TorchScript archive for any batch size.

    TorchScript has no names for outputs and no metadata, so both are in a JSON file inside of it.
    It has no opset either.
    """
    file = io.BytesIO()
    metadata = dict(network.metadata, producer=f'prunet_mm {__version__}', outputs=network.outputs)
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(network.module, _example(network), check_trace=False)
        torch.jit.save(traced, file, _extra_files={METADATA_FILE: json.dumps(metadata)})
    return file.getvalue()


def load_torchscript(data: bytes) -> Call:
    """A TorchScript archive, on the CPU."""
    with quiet():
        loaded = torch.jit.load(io.BytesIO(data))

    def call(x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            y = loaded(x)
        return [y] if isinstance(y, Tensor) else list(y)

    return call


class Runtime(NamedTuple):
    """What runs files of a format here.

    Attributes:
        name: What it is called.
        package: What it takes beside torch, if anything.
        load: Makes a callable of the content of a file.
    """

    name: str
    package: str | None
    load: Callable[[bytes], Call]


class Format(NamedTuple):
    """A format of files.

    Attributes:
        suffix: What names of such files end in.
        packages: What it takes beside torch.
        runtimes: What runs such a file here: the first one needs nothing but ``packages``, and the
            others do it where they are installed.
        write: Makes the content of a file of a network in evaluation mode, with this opset.
    """

    suffix: str
    packages: tuple[str, ...]
    runtimes: tuple[Runtime, ...]
    write: Callable[[Network, int], bytes]

    def require(self) -> None:
        """Refuses what this machine cannot do.

        Raises:
            ConfigError: Names the packages that are missing, and the command that installs them.
        """
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise ConfigError(
                f'to export to {self.suffix} and to check the file takes {", ".join(missing)}, not '
                f'installed: pip install {" ".join(missing)}'
            )

    def installed(self) -> list[Runtime]:
        """The runtimes that are here."""
        return [r for r in self.runtimes if r.package is None or find_spec(r.package)]


FORMATS = {
    'onnx': Format(
        '.onnx',
        ('onnx', 'onnxscript', 'onnxruntime'),
        (
            Runtime('ONNX Runtime', 'onnxruntime', load_onnx),
            Runtime('OpenVINO', 'openvino', load_openvino),
        ),
        to_onnx,
    ),
    'torchscript': Format(
        '.pt', (), (Runtime('TorchScript', None, load_torchscript),), to_torchscript
    ),
}


def require_opset(opset: int) -> int:
    """The opset, if files are written with it.

    Raises:
        ConfigError: They are not.
    """
    if opset not in OPSETS:
        raise ConfigError(
            f'--opset {opset}: files are written with opset {OPSETS[0]} to {OPSETS[-1]} only; '
            f'without --opset it is {OPSET}'
        )
    return opset


def _example(network: Network) -> Tensor:
    # A batch of 1 would be taken for a constant.
    return torch.randn(2, *network.shape)
