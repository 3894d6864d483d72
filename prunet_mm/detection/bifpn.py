"""The neck of EfficientDet: a feature pyramid whose levels are fused in both directions.

Importing this module needs mmdet, in whose registry the neck is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule, build_activation_layer, build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from prunet_mm.errors import ConfigError
from prunet_mm.models.blocks import ACTIVATIONS

NORM = dict(type='BN', eps=1e-3, momentum=0.01)
SWISH = ACTIVATIONS['swish']
INIT = dict(
    type='Kaiming',
    layer='Conv2d',
    mode='fan_in',
    nonlinearity='linear',
    distribution='uniform',
)


@MODELS.register_module()
class BiFPN(BaseModule):
    """Stacked cells of a bidirectional feature pyramid.

    From *EfficientDet*, arXiv 1911.09070: fast normalised fusion of the maps that meet in a node,
    then swish, a depthwise-separable convolution and a norm. Maps are brought to a node's level by
    max pooling or nearest upsampling, and to the pyramid's width by a 1x1 convolution with a norm.
    Computes what effdet 0.4.1 does with symmetric padding and without biases in front of norms.

    Args:
        in_channels: Channels of the backbone's maps, finest first; strides double from one to the
            next.
        out_channels: Width of the pyramid.
        num_outs: Number of levels; those that the backbone does not have are pooled from its last.
        num_cells: Number of stacked cells.
        norm_cfg: Config of every norm layer.
        act_cfg: Config of the activation in front of every separable convolution.
        eps: Added to the sum of a node's fusion weights.
        init_cfg: How weights start: uniform with a variance of 1 / fan-in by default.

    Raises:
        ConfigError: Fewer levels than maps come in, or no cell.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int = 5,
        num_cells: int = 3,
        norm_cfg: dict = NORM,
        act_cfg: dict = SWISH,
        eps: float = 1e-4,
        init_cfg: dict | list[dict] | None = INIT,
    ) -> None:
        super().__init__(init_cfg)
        if num_outs < max(2, len(in_channels)):
            raise ConfigError(
                f'BiFPN: num_outs is {num_outs}, but has to be at least 2 and the number of '
                f'in_channels, {len(in_channels)}'
            )
        if num_cells < 1:
            raise ConfigError(f'BiFPN: num_cells is {num_cells}, but has to be at least 1')
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.extra_levels = nn.ModuleList()
        channels = self.in_channels
        for _ in range(num_outs - len(in_channels)):
            self.extra_levels.append(_projection(channels[-1], out_channels, norm_cfg))
            channels = [*channels, out_channels]
        self.cells = nn.ModuleList()
        for _ in range(num_cells):
            self.cells.append(BiFPNCell(channels, out_channels, norm_cfg, act_cfg, eps))
            channels = [out_channels] * num_outs

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (N, in_channels[i], H, W) to ``num_outs`` maps (N, out_channels, H, W).

        Rows and columns of the first levels are those of the inputs, and halve from there on,
        rounded up.
        """
        maps = list(inputs)
        for projection in self.extra_levels:
            maps.append(_halve(projection(maps[-1])))
        for cell in self.cells:
            maps = cell(maps)
        return tuple(maps)


class BiFPNCell(nn.Module):
    """One way down the pyramid, from coarse to fine, and one way up again.

    Args:
        in_channels: Channels of the map at each level, finest first.
        channels: Width of the pyramid.
        norm_cfg: Config of every norm layer.
        act_cfg: Config of the activations.
        eps: Added to the sum of a node's fusion weights.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        norm_cfg: dict = NORM,
        act_cfg: dict = SWISH,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        config = dict(channels=channels, norm_cfg=norm_cfg, act_cfg=act_cfg, eps=eps)
        last = len(in_channels) - 1
        self.down = nn.ModuleList()  # levels 0 to last - 1
        for level in range(last):
            coarser = in_channels[last] if level == last - 1 else channels
            self.down.append(FusionNode([in_channels[level], coarser], **config))
        self.up = nn.ModuleList()  # levels 1 to last, the last of which has no node on the way down
        for level in range(1, last + 1):
            own = [in_channels[level]] if level == last else [in_channels[level], channels]
            self.up.append(FusionNode([*own, channels], **config))

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Maps one map per level, finest first, to one of the pyramid's width per level."""
        maps, last = list(inputs), len(inputs) - 1
        for level in reversed(range(last)):
            maps[level] = self.down[level]([inputs[level], maps[level + 1]])
        for level in range(1, last):
            maps[level] = self.up[level - 1]([inputs[level], maps[level], maps[level - 1]])
        maps[last] = self.up[last - 1]([inputs[last], maps[last - 1]])
        return maps


class FusionNode(nn.Module):
    """Weighted mean of maps at the first one's size, activation, separable convolution, norm.

    Args:
        in_channels: Channels of each map.
        channels: Channels of the output.
        norm_cfg: Config of the norm layers.
        act_cfg: Config of the activation.
        eps: Added to the sum of the fusion weights.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, norm_cfg: dict, act_cfg: dict, eps: float
    ) -> None:
        super().__init__()
        self.eps = eps
        self.projections = nn.ModuleList(
            _projection(count, channels, norm_cfg) for count in in_channels
        )
        self.fusion_weights = nn.Parameter(torch.ones(len(in_channels)))
        self.act = build_activation_layer(act_cfg)
        self.conv = separable_conv(channels, channels)
        self.conv.add_module('norm', build_norm_layer(norm_cfg, channels)[1])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, in_channels[i], H_i, W_i) to one (N, channels, H_0, W_0)."""
        weights = F.relu(self.fusion_weights)
        weights = weights / (weights.sum() + self.eps)
        size = maps[0].shape[-2:]
        fused = sum(
            weight * _resample(project(x), size)
            for weight, project, x in zip(weights, self.projections, maps, strict=True)
        )
        return self.conv(self.act(fused))


def separable_conv(in_channels: int, out_channels: int, bias: bool = False) -> nn.Sequential:
    """A depthwise 3x3 convolution, then a 1x1 convolution; a bias only behind the second."""
    conv = nn.Sequential()
    conv.add_module(
        'depthwise',
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
    )
    conv.add_module('pointwise', nn.Conv2d(in_channels, out_channels, 1, bias=bias))
    return conv


def _projection(in_channels: int, channels: int, norm_cfg: dict) -> nn.Module:
    if in_channels == channels:
        return nn.Identity()
    return ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)


def _halve(x: Tensor) -> Tensor:
    """Half the rows and columns, rounded up."""
    return F.max_pool2d(x, 3, stride=2, padding=1)


def _resample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """A map at the size of a neighbouring level."""
    if x.shape[-2] > size[0] or x.shape[-1] > size[1]:
        x = _halve(x)
    # Pooling misses the size by a pixel where the backbone rounds down as it halves.
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode='nearest')
