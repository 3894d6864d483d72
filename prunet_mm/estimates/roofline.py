"""What networks cost on a GPU that is not at hand: a sum over kernels, from the GPU's datasheet.

::

    network = overhead + sum over kernels of (launch + memory + arithmetic + depth)

    memory      bytes / (memory_efficiency * bandwidth): input, output, residual and weights in
                float16, channels padded to multiples of 8
    arithmetic  FLOPs / (efficiency * peak): on tensor cores, but float32 units for depthwise
    depth       only dense convolutions and linear layers: what one multiprocessor takes, at its
                share of the tensor peak, for tile x tile outputs, since the products behind an
                output are added up one after another, however few outputs there are

Folded norms, ReLU and residuals cost no kernel; every swish is a kernel of its own, squeeze-and-
excitation is four. A roofline (Williams et al. 2009, doi:10.1145/1498765.1498785) takes the larger
of memory and arithmetic; here they add up, which was nearer to what is published. The formula is
our reconstruction; `benchmarks/fit_roofline.py` fits the parameters and tests them on networks
left out. All devices share them and differ in nothing but their datasheets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prunet_mm.errors import ConfigError
from prunet_mm.latency.table import Entry, LatencyTable
from prunet_mm.spec import BlockKey, NetworkSpec, SearchSpace
from prunet_mm.spec.kernels import Kernel

PARAMETERS = Path(__file__).with_name('roofline.json')
DENSE, DEPTHWISE = 'gemm', 'depthwise'
FUSED = 'relu', 'relu6'  # activations that cost no kernel; those like swish have one each
BYTES = 2  # of a float16
PADDED = 8  # channels come in multiples of this


class Device(NamedTuple):
    """A GPU's datasheet.

    Attributes:
        name: What the hardware calls itself.
        published_as: What NVIDIA's GPUNet report calls it.
        tensor_tflops: Float16 peak of the tensor cores in 10^12 FLOPs per second.
        fp32_tflops: Peak of the float32 units, likewise.
        bandwidth_gb_s: Of the memory, in 10^9 bytes per second.
        multiprocessors: How many there are.
    """

    name: str
    published_as: str
    tensor_tflops: float
    fp32_tflops: float
    bandwidth_gb_s: float
    multiprocessors: int


DEVICES = dict(
    v100=Device('Tesla V100-SXM2-32GB', 'V100-32GB', 125, 15.7, 900, 80),
    a100=Device('NVIDIA A100-SXM4-80GB', 'A100-80GB', 312, 19.5, 2039, 108),
)


def find_device(name: str) -> Device:
    """The device of a short name such as 'v100'.

    Raises:
        ConfigError: There is none; lists those there are.
    """
    if name not in DEVICES:
        raise ConfigError(
            f'latency cannot be estimated for the device "{name}", only for {", ".join(DEVICES)}'
        )
    return DEVICES[name]


def launched(key: BlockKey) -> Iterator[Kernel]:
    """The kernels of a block as they are launched: its own, and one per unfused 'act'."""
    kernels = key.kernels()
    for kernel, after in zip(kernels, (*kernels[1:], None), strict=True):
        yield kernel
        gate = after is not None and after.kind == 'scale'  # a sigmoid, part of the next kernel
        ends = after is None and key.op != 'conv' and not key.act_last
        act = (key.se_act or key.act) if kernel.affine == 1 else key.act
        if act not in FUSED and kernel.kind in (DENSE, DEPTHWISE) and not (gate or ends):
            channels = kernel.out_channels
            yield Kernel('act', channels, channels, 1, 1, *kernel.out_size)


def terms(key: BlockKey, device: Device, batch: int) -> np.ndarray:
    """What each of `Roofline.coefficients` is multiplied with, for one block.

    Args:
        key: The block.
        device: Where it runs.
        batch: Images per pass.

    Returns:
        (5,): number of kernels; and in ms, at the peaks of the datasheet, memory, arithmetic on
        tensor cores, arithmetic of depthwise convolutions, depth at a tile of one output.
    """
    return np.sum([_terms(kernel, device, batch) for kernel in launched(key)], axis=0)


def _terms(kernel: Kernel, device: Device, batch: int) -> tuple[float, ...]:
    inputs, outputs = (_padded(n) for n in (kernel.in_channels, kernel.out_channels))
    height, width = kernel.out_size
    pixels = batch * height * width
    products = kernel.kernel**2 * {DENSE: inputs, DEPTHWISE: 1}.get(kernel.kind, 0)  # per output
    moved = (
        batch * kernel.height * kernel.width * inputs
        + pixels * outputs * (2 if kernel.residual else 1)
        + products * outputs
    )
    memory_ms = BYTES * moved / device.bandwidth_gb_s / 1e6
    giga_flops = 2 * pixels * outputs * products / 1e9
    if kernel.kind != DENSE:
        return 1, memory_ms, 0, giga_flops / device.fp32_tflops, 0
    depth_ms = 2 * products / 1e9 / device.tensor_tflops * device.multiprocessors
    return 1, memory_ms, giga_flops / device.tensor_tflops, 0, depth_ms


def _padded(channels: int) -> int:
    return -(-channels // PADDED) * PADDED


@dataclass(frozen=True)
class Roofline:
    """The model's parameters; see the top of the file.

    Attributes:
        launch_ms: What a kernel takes beside its work.
        memory_efficiency: Bandwidth that is reached, as a part of the datasheet's.
        tensor_efficiency: Peak that is reached on tensor cores, likewise.
        depthwise_efficiency: Float32 peak that depthwise convolutions reach.
        tile: Outputs per side of what a multiprocessor computes at a time.
        overhead_ms: What a network takes beside its kernels, by the protocol of its measurement.
    """

    launch_ms: float
    memory_efficiency: float
    tensor_efficiency: float
    depthwise_efficiency: float
    tile: float
    overhead_ms: float

    @classmethod
    def load(cls) -> Roofline:
        """The fitted parameters that come with the package."""
        return cls(**load_fit()['parameters'])

    @classmethod
    def from_coefficients(cls, coefficients: np.ndarray, overhead_ms: float) -> Roofline:
        """The inverse of `coefficients`."""
        launch_ms, memory, tensor, depthwise, area = map(float, coefficients)
        return cls(launch_ms, 1 / memory, 1 / tensor, 1 / depthwise, area**0.5, overhead_ms)

    @property
    def coefficients(self) -> np.ndarray:
        """(5,): latency is linear in them, which makes the fit unique; see `terms`."""
        return np.array(
            [
                self.launch_ms,
                1 / self.memory_efficiency,
                1 / self.tensor_efficiency,
                1 / self.depthwise_efficiency,
                self.tile**2,
            ]
        )

    def block_ms(self, key: BlockKey, device: Device, batch: int) -> float:
        """Estimated latency of a block inside of a network in ms."""
        return float(terms(key, device, batch) @ self.coefficients)

    def predict_ms(self, spec: NetworkSpec, device: Device, batch: int) -> float:
        """Estimated latency of a network in ms, for a batch of images."""
        blocks = (self.block_ms(key, device, batch) for key in spec.block_keys())
        return sum(blocks) + self.overhead_ms


def load_fit() -> dict[str, Any]:
    """Parameters, and the errors of the fit: what `benchmarks/fit_roofline.py` wrote."""
    return json.loads(PARAMETERS.read_text('utf-8'))


def estimated_table(
    space: SearchSpace, device: Device, batch: int, fit: dict[str, Any] | None = None
) -> LatencyTable:
    """A latency table of a whole search space, without a measurement.

    It holds the narrowest and the widest hidden width of each candidate: in between, the model is
    as linear as the table. Where widths are no multiples of 8 it holds all of them.

    Args:
        space: What the table is for.
        device: Where the networks are to run.
        batch: Images per pass.
        fit: As `load_fit`, which is the default.
    """
    fit = fit or load_fit()
    model = Roofline(**fit['parameters'])
    return LatencyTable(
        kind='estimated',
        device=device.name,
        backend=fit['backend'],
        dtype='float16',
        batch=batch,
        threads=1,
        software={},
        date=fit['date'],
        protocol=dict(
            model='prunet_mm.estimates.roofline',
            parameters=asdict(model),
            estimates=fit['protocol'],
            fitted_on=fit['networks'],
            mean_error_of_a_network_left_out=fit['errors'][device.published_as]['left_out'],
        ),
        network_overhead_ms=model.overhead_ms,
        entries=[
            Entry(
                **key._asdict(),
                latency_ms=round(model.block_ms(key, device, batch), 7),
                iqr_ms=0.0,
                samples=0,
            )
            for key in _supports(space)
        ],
    )


def _supports(space: SearchSpace) -> list[BlockKey]:
    """The blocks between which latency is linear in the hidden width."""
    inner = {
        layer.block_key(position.height, position.width)
        for position in space.positions()
        for candidate in position.candidates
        if not any(width % PADDED for width in candidate.widths)
        for layer in (position.layer(candidate, width) for width in candidate.widths[1:-1])
    }
    return [key for key in space.block_keys() if key not in inner]
