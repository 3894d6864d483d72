"""Detectors of mmdet as a whole: the network, and the post-processing of what it returns.

With random weights either none or nearly all of a head's scores pass the threshold, and what the
post-processing takes depends on little else. So it gets made-up scores in their place: as many
above the threshold as the config lets through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunet_mm.errors import ConfigError

BACKGROUND = -9.0  # the logit of a score of 0.0001
MARGIN = 0.05  # of logits above the threshold, more than any dtype rounds them by


class DetectorNetwork(nn.Module):
    """Backbone, neck and head of a single-stage detector, without post-processing.

    Args:
        detector: One of mmdet's that `require_plain_head` lets through.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps images (N, C, H, W) to maps: scores of all levels, then box deltas of all levels.

        A head that says more than that adds it behind them, level by level. In one tuple, since
        graphs of other libraries have no nested outputs.
        """
        return tuple(level for output in self.detector(x, mode='tensor') for level in output)


class PostProcessing:
    """Score threshold, top-k, decoding and NMS, as mmdet does them in a test.

    Computes in float32 on the network's device, whatever the network itself is run by. Boxes are
    those of the network's random weights. The scores are made up: at each level ``nms_pre``, or
    all that there are, lie above ``score_thr``, more than which never get to NMS. They are at
    random places and of random classes, so that fewer boxes than usual suppress another.

    Args:
        network: What comes before.
        shape: (C, H, W) of an image.

    Attributes:
        candidates: Boxes of each image that pass threshold and top-k. The few of them that lie
            outside of the image are dropped before NMS.
    """

    def __init__(self, network: DetectorNetwork, shape: Sequence[int]) -> None:
        self.head = network.detector.bbox_head
        self.levels = self.head.prior_generator.num_levels
        self._meta = dict(img_shape=tuple(shape[1:]), scale_factor=(1.0, 1.0))
        with torch.no_grad():
            scores = network(torch.randn(1, *shape))[: self.levels]
        self.candidates = sum(map(self._passing, scores))

    def behind(
        self, call: Callable[[Any], Sequence[Tensor]], outputs: Sequence[Tensor]
    ) -> Callable[[Any], list]:
        """Makes what runs a network and then post-processes.

        Args:
            call: Runs the network; what it returns is not looked at.
            outputs: What it has returned for other images of the same shape.
        """
        made_up = [*map(self._scores, outputs[: self.levels])]
        made_up += [output.clone() for output in outputs[self.levels :]]
        images = [self._meta] * len(made_up[0])

        def run(x: Any) -> list:
            call(x)
            maps = [output.float() for output in made_up]
            groups = [maps[at : at + self.levels] for at in range(0, len(maps), self.levels)]
            return self.head.predict_by_feat(*groups, batch_img_metas=images, rescale=True)

        return run

    def _passing(self, scores: Tensor) -> int:
        """How many scores of one image pass threshold and top-k at a level (N, ., H, W)."""
        return min(self.head.test_cfg.nms_pre, scores[0].numel())

    def _scores(self, like: Tensor) -> Tensor:
        """Logits of a level as the network would give them, the same for all images."""
        count = like[0].numel()
        random = torch.Generator().manual_seed(0)
        places = torch.rand(count, generator=random).topk(self._passing(like)).indices
        threshold = max(self.head.test_cfg.get('score_thr', 0), 1e-3)
        above = math.log(threshold / (1 - threshold)) + MARGIN
        passing = above + torch.rand(places.shape, generator=random)
        logits = torch.full((count,), BACKGROUND).scatter_(0, places, passing)
        return torch.empty_like(like).copy_(logits.view(like.shape[1:]))


def has_plain_head(detector: nn.Module) -> bool:
    """Whether one of mmdet's detectors post-processes as its RetinaNet does."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import SingleStageDetector

    head = getattr(detector, 'bbox_head', None)
    methods = 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process'
    plain = isinstance(detector, SingleStageDetector) and all(
        getattr(type(head), method, None) is getattr(BaseDenseHead, method) for method in methods
    )
    return plain and getattr(head, 'use_sigmoid_cls', False)


def require_plain_head(detector: nn.Module, name: str) -> None:
    """Refuses detectors other than those that `DetectorNetwork` and `PostProcessing` know.

    Args:
        detector: One of mmdet's.
        name: What errors call it.

    Raises:
        ConfigError: It has several stages or a head that post-processes in a way of its own, or its
            config sets no ``nms_pre``.
    """
    head = getattr(detector, 'bbox_head', None)
    if not has_plain_head(detector):
        raise ConfigError(
            f'{name}: as a whole only detectors are timed that post-process as RetinaNet does, and '
            f'{type(detector).__name__} with {type(head).__name__} does not: leave --whole out'
        )
    if (head.test_cfg or {}).get('nms_pre', 0) <= 0:
        raise ConfigError(
            f'{name}: a whole detector is timed with as many boxes as `model.test_cfg.nms_pre` '
            'lets through, and the config does not set it: leave --whole out'
        )


def versions() -> dict[str, str]:
    """Versions of what post-processes, by name."""
    import mmcv
    import mmdet

    return dict(mmcv=mmcv.__version__, mmdet=mmdet.__version__)
