"""What a block runs on the device: the one place that counts kernels, weights and MACs."""

from __future__ import annotations

from typing import NamedTuple

INVERTED = ('irb', 'fused_irb')  # the ops that have a hidden width
SEPARABLE = ('ds', *INVERTED)  # the ops that end in a projection and may squeeze and excite


class Kernel(NamedTuple):
    """One kernel of inference; BN, activation and residual are fused into the one before them.

    Attributes:
        kind: 'gemm' (dense convolution, linear), 'depthwise', 'pool' (global average) or
            'scale' (channels times gate).
        height: Rows of its *input*, in pixels; ``width`` its columns.
        residual: Whether the block's input is added to its output.
        affine: Learned numbers per output channel beside the weights: 2 for BN, 1 for a bias, 0
            for neither.
        padding: Pixels added on each side; None for ``kernel // 2``, 'same' as in a `LayerSpec`.
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
    padding: int | str | None = None

    @property
    def out_size(self) -> tuple[int, int]:
        """Output (height, width) in pixels."""
        if self.kind == 'pool':
            return 1, 1
        return tuple(
            convolved(size, self.kernel, self.stride, self.padding)
            for size in (self.height, self.width)
        )

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
        op: 'conv', 'ds', 'fused_irb', 'irb', 'shortcut' or 'tail'.
        out_channels: For a tail the number of classes.
        hidden: Hidden width, 0 for an op without one; for a tail the width of its 1x1 conv, 0
            for none.
        se: Squeeze channels of squeeze-and-excitation, 0 for none.
        height: Rows of the block's *input*, in pixels; ``width`` its columns.
        padding: Of the k x k convolution, where it is not ``kernel // 2``.
        residual: Whether the block adds its input to its output, where it does not follow the
            rule: a separable or inverted residual block of stride 1 and equal channels does.
        features: For a tail, the width of its 1x1 conv behind the pool, 0 for none.
        features_bias: Whether that conv has a bias.
        act_last: Whether the activation follows the projection, too.
        se_act: Activation inside squeeze-and-excitation, where it is not ``act``.
        se_gate: What squeeze-and-excitation makes its factors with.
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
    padding: int | str | None = None
    residual: bool | None = None
    features: int = 0
    features_bias: bool = False
    act_last: bool = False
    se_act: str | None = None
    se_gate: str = 'sigmoid'

    @property
    def order(self) -> tuple:
        """What keys are sorted by: a field may be None, a number or a word."""
        return tuple((value is not None, isinstance(value, str), value) for value in self)

    @property
    def size(self) -> tuple[int, int]:
        """Input (height, width) in pixels."""
        return self.height, self.width

    @property
    def out_size(self) -> tuple[int, int]:
        """Output (height, width) in pixels; (1, 1) for a tail."""
        if self.op == 'tail':
            return 1, 1
        return tuple(convolved(size, self.kernel, self.stride, self.padding) for size in self.size)

    @property
    def has_residual(self) -> bool:
        """Whether the block adds its input to its output."""
        if self.residual is not None:
            return self.residual
        return self.op in SEPARABLE and self.stride == 1 and self.in_channels == self.out_channels

    def kernels(self) -> tuple[Kernel, ...]:
        """The block's kernels in the order in which they run."""
        return _KERNELS[self.op](self)

    def params(self) -> int:
        """Learned parameters: weights, BN scale and shift, biases."""
        return sum(kernel.params for kernel in self.kernels())

    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and linear layers, nothing else."""
        return sum(kernel.macs for kernel in self.kernels())


def convolved(size: int, kernel: int, stride: int, padding: int | str | None = None) -> int:
    """Pixels left of ``size`` behind a convolution; ``padding`` is ``kernel // 2`` by default."""
    if padding == 'same':
        return -(-size // stride)
    padding = kernel // 2 if padding is None else padding
    return (size + 2 * padding - kernel) // stride + 1


def strided(size: int, stride: int) -> int:
    """The same for any odd kernel with its symmetric padding."""
    return convolved(size, 1, stride)


def _conv(key: BlockKey) -> tuple[Kernel, ...]:
    kernel = _spatial('gemm', key, key.in_channels, key.out_channels)
    return (kernel._replace(residual=key.has_residual),)


def _ds(key: BlockKey) -> tuple[Kernel, ...]:
    channels = key.in_channels
    return (_spatial('depthwise', key, channels, channels), *_squeeze_and_project(key, channels))


def _irb(key: BlockKey) -> tuple[Kernel, ...]:
    return (
        Kernel('gemm', key.in_channels, key.hidden, 1, 1, *key.size),
        _spatial('depthwise', key, key.hidden, key.hidden),
        *_squeeze_and_project(key, key.hidden),
    )


def _fused_irb(key: BlockKey) -> tuple[Kernel, ...]:
    expand = _spatial('gemm', key, key.in_channels, key.hidden)
    return (expand, *_squeeze_and_project(key, key.hidden))


def _spatial(kind: str, key: BlockKey, in_channels: int, out_channels: int) -> Kernel:
    """The block's one k x k convolution."""
    return Kernel(
        kind, in_channels, out_channels, key.kernel, key.stride, *key.size, padding=key.padding
    )


def _squeeze_and_project(key: BlockKey, hidden: int) -> tuple[Kernel, ...]:
    size = key.out_size
    squeeze = (
        Kernel('pool', hidden, hidden, 1, 1, *size, affine=0),
        Kernel('gemm', hidden, key.se, 1, 1, 1, 1, affine=1),
        Kernel('gemm', key.se, hidden, 1, 1, 1, 1, affine=1),
        Kernel('scale', hidden, hidden, 1, 1, *size, affine=0),
    )
    project = Kernel('gemm', hidden, key.out_channels, 1, 1, *size, residual=key.has_residual)
    return (*squeeze, project) if key.se else (project,)


def _tail(key: BlockKey) -> tuple[Kernel, ...]:
    kernels, channels = [], key.in_channels
    if key.hidden:
        kernels.append(Kernel('gemm', channels, key.hidden, 1, 1, *key.size))
        channels = key.hidden
    kernels.append(Kernel('pool', channels, channels, 1, 1, *key.size, affine=0))
    if key.features:
        affine = int(key.features_bias)
        kernels.append(Kernel('gemm', channels, key.features, 1, 1, 1, 1, affine=affine))
        channels = key.features
    return (*kernels, Kernel('gemm', channels, key.out_channels, 1, 1, 1, 1, affine=1))


_KERNELS = dict(conv=_conv, ds=_ds, irb=_irb, fused_irb=_fused_irb, shortcut=_conv, tail=_tail)
