"""What stands between a backbone's last stage and the linear layer of a classifier."""

from __future__ import annotations

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from prunet_mm.models.blocks import ACTIVATIONS, NORM
from prunet_mm.models.deploy import fold_norms
from prunet_mm.models.prunet import INIT
from prunet_mm.registry import register_model


@register_model
class PRUNetTail(BaseModule):
    """Neck: [1x1 conv, norm, activation], global average pool, [1x1 conv, activation], dropout.

    What a `TailSpec` says, less its linear layer, which is mmpretrain's `LinearClsHead`.

    Args:
        in_channels: Channels of the backbone's last output.
        channels: Channels of the 1x1 convolution in front of the pool; 0 for none.
        act: Activation behind the convolutions, one of ``blocks.ACTIVATIONS``.
        dropout: Probability with which a feature is dropped in training.
        features: Channels of a 1x1 convolution behind the pool, without norm; 0 for none.
        features_bias: Whether that convolution has a bias.
        norm_cfg: Config of the norm layer.
        deploy: Build it as `switch_to_deploy` leaves it, for weights that were saved thereafter.
        init_cfg: How weights start: Kaiming for convolutions, one for norms by default.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 0,
        act: str = 'relu',
        dropout: float = 0.0,
        features: int = 0,
        norm_cfg: dict = NORM,
        deploy: bool = False,
        features_bias: bool = False,
        init_cfg: dict | list[dict] | None = INIT,
    ) -> None:
        super().__init__(init_cfg)
        self.out_channels = features or channels or in_channels
        act_cfg = ACTIVATIONS[act]
        self.conv = self.features = nn.Identity()
        if channels:
            self.conv = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        if features:
            self.features = ConvModule(
                channels or in_channels, features, 1, bias=features_bias, act_cfg=act_cfg
            )
        self.dropout = nn.Dropout(dropout)
        if deploy:
            self.switch_to_deploy()

    def switch_to_deploy(self) -> None:
        """Folds the norm into the convolution in front of it, in place, for inference."""
        fold_norms(self)

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        """Maps the last of the backbone's outputs, (N, in, H, W), to one (N, out_channels)."""
        x = x[-1] if isinstance(x, tuple) else x
        pooled = self.conv(x).mean((2, 3), keepdim=True)
        return (self.dropout(self.features(pooled).flatten(1)),)
