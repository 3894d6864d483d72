"""What a block runs on the device: the one place that counts kernels, weights and MACs."""

from __future__ import annotations

from typing import NamedTuple


class Kernel(NamedTuple):
    """One kernel of inference; BN, activation and residual are fused into the one before them.

    Attributes:
        kind: 'gemm' (dense convolution, linear), 'depthwise', 'pool' (global average) or
            'scale' (channels times gate).
        height: Rows of its *input*, in pixels; ``width`` its columns.
        residual: Whether the block's input is added to its output.
        affine: Learned numbers per output channel beside the weights: 2 for BN, 1 for a bias.
    """

    kind: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    height: int
    width: int
    residual: bool = False
    affine: int = 2

    @property
    def out_size(self) -> tuple[int, int]:
        """Output (height, width) in pixels."""
        if self.kind == 'pool':
            return 1, 1
        return strided(self.height, self.stride), strided(self.width, self.stride)

    @property
    def weights(self) -> int:
        """Weights of the convolution or linear layer, without BN and bias."""
        per_output = {'gemm': self.in_channels, 'depthwise': 1}.get(self.kind, 0)
        return self.kernel**2 * per_output * self.out_channels

    @property
    def params(self) -> int:
        return self.weights + self.affine * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and linear layers, nothing else."""
        height, width = self.out_size
        return self.weights * height * width


class BlockKey(NamedTuple):
    """Everything that decides which kernels a block runs: the key of a latency table.

    Attributes:
        op: 'conv', 'fused_irb', 'irb' or 'tail'.
        out_channels: For a tail the number of classes.
        hidden: Hidden width, 0 for a conv; for a tail the width of its 1x1 conv, 0 for none.
        se: Squeeze channels of squeeze-and-excitation, 0 for none.
        height: Rows of the block's *input*, in pixels; ``width`` its columns.
    """

    op: str
    in_channels: int
    out_channels: int
    hidden: int
    kernel: int
    stride: int
    act: str
    se: int
    height: int
    width: int

    @property
    def out_size(self) -> tuple[int, int]:
        """Output (height, width) in pixels; (1, 1) for a tail."""
        if self.op == 'tail':
            return 1, 1
        return strided(self.height, self.stride), strided(self.width, self.stride)

    @property
    def residual(self) -> bool:
        """Whether the block adds its input to its output."""
        inverted = self.op in ('irb', 'fused_irb')
        return inverted and self.stride == 1 and self.in_channels == self.out_channels

    def kernels(self) -> tuple[Kernel, ...]:
        """The block's kernels in the order in which they run."""
        return _KERNELS[self.op](self)

    def params(self) -> int:
        """Learned parameters: weights, BN scale and shift, biases."""
        return sum(kernel.params for kernel in self.kernels())

    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and linear layers, nothing else."""
        return sum(kernel.macs for kernel in self.kernels())


def strided(size: int, stride: int) -> int:
    """Pixels left of ``size`` behind a convolution with odd kernel and symmetric padding."""
    return -(-size // stride)


def _conv(key: BlockKey) -> tuple[Kernel, ...]:
    return (Kernel('gemm', key.in_channels, key.out_channels, key.kernel, key.stride, *key[-2:]),)


def _irb(key: BlockKey) -> tuple[Kernel, ...]:
    return (
        Kernel('gemm', key.in_channels, key.hidden, 1, 1, *key[-2:]),
        Kernel('depthwise', key.hidden, key.hidden, key.kernel, key.stride, *key[-2:]),
        *_squeeze_and_project(key),
    )


def _fused_irb(key: BlockKey) -> tuple[Kernel, ...]:
    return (
        Kernel('gemm', key.in_channels, key.hidden, key.kernel, key.stride, *key[-2:]),
        *_squeeze_and_project(key),
    )


def _squeeze_and_project(key: BlockKey) -> tuple[Kernel, ...]:
    hidden, size = key.hidden, key.out_size
    squeeze = (
        Kernel('pool', hidden, hidden, 1, 1, *size, affine=0),
        Kernel('gemm', hidden, key.se, 1, 1, 1, 1, affine=1),
        Kernel('gemm', key.se, hidden, 1, 1, 1, 1, affine=1),
        Kernel('scale', hidden, hidden, 1, 1, *size, affine=0),
    )
    project = Kernel('gemm', hidden, key.out_channels, 1, 1, *size, residual=key.residual)
    return (*squeeze, project) if key.se else (project,)


def _tail(key: BlockKey) -> tuple[Kernel, ...]:
    expand = Kernel('gemm', key.in_channels, key.hidden, 1, 1, *key[-2:])
    channels = key.hidden or key.in_channels
    pool = Kernel('pool', channels, channels, 1, 1, *key[-2:], affine=0)
    classify = Kernel('gemm', channels, key.out_channels, 1, 1, 1, 1, affine=1)
    return (expand, pool, classify) if key.hidden else (pool, classify)


_KERNELS = dict(conv=_conv, irb=_irb, fused_irb=_fused_irb, tail=_tail)
