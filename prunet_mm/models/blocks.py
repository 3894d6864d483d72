"""The blocks a network is made of: plain, fused and depthwise, each built from one `LayerSpec`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mmcv.cnn import ConvModule, build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

if TYPE_CHECKING:
    from prunet_mm.spec import LayerSpec

ACTIVATIONS = {'relu': dict(type='ReLU', inplace=True), 'swish': dict(type='SiLU', inplace=True)}
NORM = dict(type='BN', eps=1e-3, momentum=0.1)


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from all channels' means.

    From *Squeeze-and-Excitation Networks*, arXiv 1709.01507.

    Args:
        channels: Channels of the map that is scaled.
        squeeze: Channels between the two 1x1 convolutions.
        act: Activation between them, ``'relu'`` or ``'swish'``.
    """

    def __init__(self, channels: int, squeeze: int, act: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = build_activation_layer(ACTIVATIONS[act])
        self.expand = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        gate = self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class ConvBlock(nn.Module):
    """Dense k x k convolution, norm, and unless it is a shortcut, activation; never a residual.

    Args:
        layer: What to build; ``layer.op`` is ``'conv'`` or ``'shortcut'``.
        norm_cfg: Config of the norm layer.
    """

    def __init__(self, layer: LayerSpec, norm_cfg: dict = NORM) -> None:
        super().__init__()
        self.conv = ConvModule(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            stride=layer.stride,
            padding=padding(layer),
            norm_cfg=norm_cfg,
            act_cfg=None if layer.op == 'shortcut' else ACTIVATIONS[layer.act],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride), rounded up by default padding."""
        return self.conv(x)


class InvertedResidual(nn.Module):
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
        self.depthwise = ConvModule(
            hidden,
            hidden,
            layer.kernel,
            stride=layer.stride,
            padding=padding(layer),
            groups=hidden,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        self.se = SqueezeExcite(hidden, layer.se, layer.act) if layer.se else None
        self.project = ConvModule(hidden, layer.out_channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        self.residual = layer.has_residual
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride), rounded up by default padding."""
        out = self.depthwise(self.expand(x))
        if self.se is not None:
            out = self.se(out)
        out = self.project(out)
        return x + self.drop_path(out) if self.residual else out


class FusedInvertedResidual(nn.Module):
    """Dense k x k expansion to the hidden width, optional SE, 1x1 projection.

    From *EfficientNetV2*, arXiv 2104.00298.

    Args:
        layer: What to build; ``layer.op`` is ``'fused_irb'``.
        norm_cfg: Config of the norm layers.
        drop_path: Probability with which a training step skips the block, where it has a residual.
    """

    def __init__(self, layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> None:
        super().__init__()
        self.expand = ConvModule(
            layer.in_channels,
            layer.hidden,
            layer.kernel,
            stride=layer.stride,
            padding=padding(layer),
            norm_cfg=norm_cfg,
            act_cfg=ACTIVATIONS[layer.act],
        )
        self.se = SqueezeExcite(layer.hidden, layer.se, layer.act) if layer.se else None
        self.project = ConvModule(
            layer.hidden, layer.out_channels, 1, norm_cfg=norm_cfg, act_cfg=None
        )
        self.residual = layer.has_residual
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride), rounded up by default padding."""
        out = self.expand(x)
        if self.se is not None:
            out = self.se(out)
        out = self.project(out)
        return x + self.drop_path(out) if self.residual else out


BLOCKS = {'irb': InvertedResidual, 'fused_irb': FusedInvertedResidual}


def build_block(layer: LayerSpec, norm_cfg: dict = NORM, drop_path: float = 0.0) -> nn.Module:
    """Builds the block that a layer describes.

    Args:
        layer: Op, widths, kernel, stride, activation and squeeze-and-excitation of the block.
        norm_cfg: Config of every norm layer in it.
        drop_path: Probability with which a training step skips the block, where it has a residual
            (stochastic depth, arXiv 1603.09382).
    """
    if layer.op in BLOCKS:
        return BLOCKS[layer.op](layer, norm_cfg, drop_path)
    return ConvBlock(layer, norm_cfg)


def padding(layer: LayerSpec) -> int:
    """Pixels that the layer's k x k convolution adds on each side."""
    return layer.kernel // 2 if layer.padding is None else layer.padding
