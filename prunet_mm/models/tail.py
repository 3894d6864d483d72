"""What stands between a backbone's last stage and the linear layer of a classifier."""

from __future__ import annotations

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from prunet_mm.models.blocks import ACTIVATIONS, NORM
from prunet_mm.models.prunet import INIT
from prunet_mm.registry import register_model


@register_model
class PRUNetTail(BaseModule):
    """Neck: [1x1 conv, norm, activation], global average pool, dropout.

    What a `TailSpec` says, less its linear layer, which is mmpretrain's `LinearClsHead`.

    Args:
        in_channels: Channels of the backbone's last output.
        channels: Channels of the 1x1 convolution, and so of the output; 0 for no convolution.
        act: Activation behind it, ``'relu'`` or ``'swish'``.
        dropout: Probability with which a feature is dropped in training.
        norm_cfg: Config of the norm layer.
        init_cfg: How weights start: Kaiming for convolutions, one for norms by default.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 0,
        act: str = 'relu',
        dropout: float = 0.0,
        norm_cfg: dict = NORM,
        init_cfg: dict | list[dict] | None = INIT,
    ) -> None:
        super().__init__(init_cfg)
        self.conv = (
            ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=ACTIVATIONS[act])
            if channels
            else nn.Identity()
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        """Maps the last of the backbone's outputs, (N, in, H, W), to one (N, channels or in)."""
        x = x[-1] if isinstance(x, tuple) else x
        return (self.dropout(self.conv(x).mean((2, 3))),)
