"""The blocks a network is made of, each built from one `LayerSpec`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn

if TYPE_CHECKING:
    from prunet_mm.spec import LayerSpec

ACTIVATIONS = {
    'relu': dict(type='ReLU', inplace=True),
    'relu6': dict(type='ReLU6', inplace=True),
    'swish': dict(type='SiLU', inplace=True),
    'hard_swish': dict(type='HSwish', inplace=True),
}
GATES = {'sigmoid': nn.Sigmoid, 'hard_sigmoid': nn.Hardsigmoid}
NORM = dict(type='BN', eps=1e-3, momentum=0.1)


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from all channels' means.

    From *Squeeze-and-Excitation Networks*, arXiv 1709.01507.

    Args:
        channels: Channels of the map that is scaled.
        squeeze: Channels between the two 1x1 convolutions.
        act: Activation between them, one of `ACTIVATIONS`.
        gate: What makes factors of the second one's output, one of `GATES`.
    """

    def __init__(self, channels: int, squeeze: int, act: str, gate: str = 'sigmoid') -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = build_activation_layer(ACTIVATIONS[act])
        self.expand = nn.Conv2d(squeeze, channels, 1)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        return x * self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


class ConvBlock(nn.Module):
    """Dense k x k convolution, norm, and unless it is a shortcut, activation.

    Args:
        layer: What to build; ``layer.op`` is ``'conv'`` or ``'shortcut'``.
        norm_cfg: Config of the norm layer.
        drop_path: Probability with which a training step skips the block, where it has a residual.
    """

    def __init__(self, layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> None:
        super().__init__()
        act = None if layer.op == 'shortcut' else layer.act
        self.conv = _spatial(layer, layer.in_channels, layer.out_channels, norm_cfg, act)
        self.residual = layer.has_residual
        if self.residual:
            self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride), rounded up by default padding."""
        out = self.conv(x)
        return x + self.drop_path(out) if self.residual else out


class _Projecting(nn.Module):
    """A block that ends in optional SE, a 1x1 projection, and where it has one, the residual."""

    def _end(self, layer: LayerSpec, channels: int, norm_cfg: dict, drop_path: float) -> None:
        """Makes what comes behind a map of ``channels``."""
        self.se = None
        if layer.se:
            self.se = SqueezeExcite(channels, layer.se, layer.se_act or layer.act, layer.se_gate)
        act_cfg = ACTIVATIONS[layer.act] if layer.act_last else None
        self.project = ConvModule(
            channels, layer.out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        self.residual = layer.has_residual
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride), rounded up by default padding."""
        out = self._hidden(x)
        if self.se is not None:
            out = self.se(out)
        out = self.project(out)
        return x + self.drop_path(out) if self.residual else out


class DepthwiseSeparable(_Projecting):
    """Depthwise k x k, optional SE, 1x1 projection.

    From *MobileNets*, arXiv 1704.04861; without the last activation, as in the first blocks of
    *MobileNetV2*, arXiv 1801.04381, unless the layer says so.

    Args:
        layer: What to build; ``layer.op`` is ``'ds'``.
        norm_cfg: Config of the norm layers.
        drop_path: Probability with which a training step skips the block, where it has a residual.
    """

    def __init__(self, layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> None:
        super().__init__()
        channels = layer.in_channels
        self.depthwise = _spatial(layer, channels, channels, norm_cfg, layer.act, groups=channels)
        self._end(layer, channels, norm_cfg, drop_path)

    def _hidden(self, x: Tensor) -> Tensor:
        return self.depthwise(x)


class InvertedResidual(_Projecting):
    """1x1 expansion to the hidden width, depthwise k x k, optional SE, 1x1 projection.

    From *MobileNetV2*, arXiv 1801.04381; SE sits after the depthwise convolution as in
    *EfficientNet*, arXiv 1905.11946.

    Args:
        layer: What to build; ``layer.op`` is ``'irb'``.
        norm_cfg: Config of the norm layers.
        drop_path: Probability with which a training step skips the block, where it has a residual.
    """

    def __init__(self, layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> None:
        super().__init__()
        hidden, act_cfg = layer.hidden, ACTIVATIONS[layer.act]
        self.expand = ConvModule(layer.in_channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.depthwise = _spatial(layer, hidden, hidden, norm_cfg, layer.act, groups=hidden)
        self._end(layer, hidden, norm_cfg, drop_path)

    def _hidden(self, x: Tensor) -> Tensor:
        return self.depthwise(self.expand(x))


class FusedInvertedResidual(_Projecting):
    """Dense k x k expansion to the hidden width, optional SE, 1x1 projection.

    From *EfficientNetV2*, arXiv 2104.00298.

    Args:
        layer: What to build; ``layer.op`` is ``'fused_irb'``.
        norm_cfg: Config of the norm layers.
        drop_path: Probability with which a training step skips the block, where it has a residual.
    """

    def __init__(self, layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> None:
        super().__init__()
        self.expand = _spatial(layer, layer.in_channels, layer.hidden, norm_cfg, layer.act)
        self._end(layer, layer.hidden, norm_cfg, drop_path)

    def _hidden(self, x: Tensor) -> Tensor:
        return self.expand(x)


BLOCKS = {
    'conv': ConvBlock,
    'ds': DepthwiseSeparable,
    'fused_irb': FusedInvertedResidual,
    'irb': InvertedResidual,
    'shortcut': ConvBlock,
}


def build_block(layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> nn.Module:
    """Builds the block that a layer describes.

    Args:
        layer: Op, widths, kernel, stride, activation and squeeze-and-excitation of the block.
        norm_cfg: Config of every norm layer in it.
        drop_path: Probability with which a training step skips the block, where it has a residual
            (stochastic depth, arXiv 1603.09382).
    """
    return BLOCKS[layer.op](layer, norm_cfg, drop_path)


def _spatial(
    layer: LayerSpec,
    in_channels: int,
    out_channels: int,
    norm_cfg: dict,
    act: str | None,
    groups: int = 1,
) -> ConvModule:
    """The layer's k x k convolution with its norm and activation."""
    same = layer.padding == 'same' and layer.stride > 1  # with stride 1 it is the usual padding
    usual = layer.padding in (None, 'same')
    return ConvModule(
        in_channels,
        out_channels,
        layer.kernel,
        stride=layer.stride,
        padding=layer.kernel // 2 if usual else layer.padding,
        groups=groups,
        conv_cfg=dict(type='Conv2dAdaptivePadding') if same else None,
        norm_cfg=norm_cfg,
        act_cfg=ACTIVATIONS[act] if act else None,
    )


def padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``x`` with the zeros that ``conv`` adds beyond its ``padding``, as 'same' padding does."""
    if not isinstance(conv, Conv2dAdaptivePadding):
        return x
    sides = []
    for size, kernel, stride in zip(x.shape[:1:-1], conv.kernel_size, conv.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)
