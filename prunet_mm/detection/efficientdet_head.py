"""The head of EfficientDet: separable convolutions shared by all levels, norms of each its own.

Importing this module loads all of mmdet's models: mmdet's registry does it when a model is first
looked up there.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.utils import multi_apply
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from prunet_mm.detection.bifpn import NORM, SWISH, separable_conv

# The order of a cell's anchors, the ratios within the scales, and their centres are effdet's.
ANCHORS = dict(
    type='AnchorGenerator',
    octave_base_scale=4,
    scales_per_octave=3,
    ratios=[1.0, 0.5, 2.0],
    strides=[8, 16, 32, 64, 128],
    center_offset=0.5,
    scale_major=False,
)
CLASS_LOSS = dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.25)
# The reference takes 50 times the mean over 4 coordinates of Huber's loss with delta 0.1, which is
# 0.1 times this one: 50 / 4 * 0.1.
BOX_LOSS = dict(type='SmoothL1Loss', beta=0.1, loss_weight=1.25)


@MODELS.register_module()
class EfficientDetHead(AnchorHead):
    """Classes and boxes of anchors, from two nets that all levels share but for their norms.

    From *EfficientDet*, arXiv 1911.09070. The nets compute what effdet 0.4.1 does with symmetric
    padding and without biases in front of norms. All else is mmdet's `AnchorHead`, which has boxes
    as (x, y, w, h) where effdet has (y, x, h, w).

    Args:
        num_classes: Number of classes without background.
        in_channels: Channels of every map, and width of the nets.
        stacked_convs: Number of convolutions in front of the one that predicts.
        norm_cfg: Config of the norms.
        act_cfg: Config of the activations.
        anchor_generator: Config of the anchors, 9 per cell by default; one stride per level.
        loss_cls: Config of the loss of the classes; focal by default.
        loss_bbox: Config of the loss of the boxes; Huber's by default.
        init_cfg: None: the nets know how their weights start.
        kwargs: As for `AnchorHead`: ``bbox_coder``, ``train_cfg``, ``test_cfg`` and others.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stacked_convs: int = 3,
        norm_cfg: dict = NORM,
        act_cfg: dict = SWISH,
        anchor_generator: dict = ANCHORS,
        loss_cls: dict = CLASS_LOSS,
        loss_bbox: dict = BOX_LOSS,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        self.net_cfg = dict(repeats=stacked_convs, norm_cfg=norm_cfg, act_cfg=act_cfg)
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=in_channels,
            anchor_generator=anchor_generator,
            loss_cls=loss_cls,
            loss_bbox=loss_bbox,
            init_cfg=init_cfg,
            **kwargs,
        )

    def _init_layers(self) -> None:
        anchors, levels = self.num_base_priors, self.prior_generator.num_levels
        self.class_net = PredictionNet(
            self.in_channels,
            anchors * self.cls_out_channels,
            levels,
            bias_prob=0.01,  # arXiv 1708.02002
            **self.net_cfg,
        )
        self.box_net = PredictionNet(
            self.in_channels, anchors * self.bbox_coder.encode_size, levels, **self.net_cfg
        )

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps one (N, C, H, W) per level to scores (N, anchors * classes, H, W) and box deltas."""
        return multi_apply(self.forward_single, x, range(len(x)))

    def forward_single(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """As `forward`, for the map of one level."""
        return self.class_net(x, level), self.box_net(x, level)


class PredictionNet(BaseModule):
    """Separable convolutions on the map of any level, each followed by that level's own norm.

    Args:
        channels: Channels of the maps and of all convolutions but the last.
        out_channels: Channels of the prediction.
        levels: Number of levels.
        repeats: Number of convolutions in front of the one that predicts.
        norm_cfg: Config of the norms.
        act_cfg: Config of the activation.
        bias_prob: What a sigmoid on the prediction answers at first; None for a bias of 0.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        levels: int,
        repeats: int,
        norm_cfg: dict = NORM,
        act_cfg: dict = SWISH,
        bias_prob: float | None = None,
    ) -> None:
        start = dict(type='Kaiming', layer='Conv2d', mode='fan_in', nonlinearity='linear')
        super().__init__(dict(start, override=dict(start, name='predict', bias_prob=bias_prob)))
        self.convs = nn.ModuleList(separable_conv(channels, channels) for _ in range(repeats))
        self.norms = nn.ModuleList(
            nn.ModuleList(build_norm_layer(norm_cfg, channels)[1] for _ in range(repeats))
            for _ in range(levels)
        )
        self.act = build_activation_layer(act_cfg)
        self.predict = separable_conv(channels, out_channels, bias=True)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Maps (N, channels, H, W) to (N, out_channels, H, W)."""
        for conv, norm in zip(self.convs, self.norms[level], strict=True):
            x = self.act(norm(conv(x)))
        return self.predict(x)
