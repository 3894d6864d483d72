"""Whole detectors as modules that can be exported: boxes decoded, and the best of them taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from prunet_mm.deploy.network import (
    Network,
    class_names,
    describe,
    init,
    load,
    require_size,
    spec_metadata,
)
from prunet_mm.deploy.suppression import SUPPRESSIONS
from prunet_mm.detection.post_processing import has_plain_head
from prunet_mm.errors import ConfigError
from prunet_mm.inference.metadata import OUTPUTS, Usage
from prunet_mm.inference.preparing import preparation_of
from prunet_mm.inference.reading import Selection
from prunet_mm.models import PRUNet

if TYPE_CHECKING:
    from mmengine.config import Config

CHANNELS = 3
MAX_GROWTH = math.log(1000 / 16)  # of an anchor's sides, as mmdet's coder limits them
CANDIDATES = 'candidate_boxes', 'candidate_scores', 'candidate_labels'


class DecodedDetector(nn.Module):
    """A single-stage detector, from images to scores and boxes of all anchors.

    The anchors are constants, so images have one size.

    Args:
        detector: One of mmdet's that `require_supported` lets through.
        size: Height and width of the images.
    """

    def __init__(self, detector: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.detector = detector
        head = detector.bbox_head
        self.classes = head.cls_out_channels
        with torch.no_grad():
            maps, _ = detector(torch.zeros(1, CHANNELS, *size), mode='tensor')
        priors = head.prior_generator.grid_priors(
            [level.shape[-2:] for level in maps], device=maps[0].device
        )
        self.levels = tuple(map(len, priors))
        low, high = torch.cat(list(priors)).split(2, 1)
        coder = head.bbox_coder
        constants = dict(
            anchors=torch.cat([(low + high) / 2, high - low], 1),
            means=torch.tensor(coder.means),
            stds=torch.tensor(coder.stds),
            border=torch.tensor([*size[::-1]] * 2, dtype=torch.float32),
        )
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps images (N, 3, H, W) to scores (N, anchors, classes) and boxes (N, anchors, 4).

        Boxes are left, top, right and bottom in pixels, cut off at the border of the image; levels
        are in the order of their strides, cells in reading order.
        """
        logits, deltas = self.flat_maps(x)
        return torch.cat(logits, 1).sigmoid(), self.decode(torch.cat(deltas, 1), self.anchors)

    def flat_maps(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (N, anchors, classes) and deltas (N, anchors, 4) of each level."""
        logits, deltas = self.detector(x, mode='tensor')
        return (
            [_flat(level, self.classes) for level in logits],
            [_flat(level, 4) for level in deltas],
        )

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (N, M, 4) of deltas (N, M, 4) to anchors (M, 4) or (N, M, 4)."""
        deltas = deltas * self.stds + self.means
        centres, extents = anchors[..., :2], anchors[..., 2:]
        centres = centres + extents * deltas[..., :2]
        halves = 0.5 * extents * deltas[..., 2:].clamp(-MAX_GROWTH, MAX_GROWTH).exp()
        corners = torch.cat([centres - halves, centres + halves], -1)
        return torch.minimum(corners.clamp(min=0), self.border)


class CandidateDetector(DecodedDetector):
    """As `DecodedDetector`, but returns only what may get to the suppression.

    Args:
        detector: As there.
        size: As there.
        limit: Pairs of anchor and class that are taken of a level at most.
    """

    def __init__(self, detector: nn.Module, size: Sequence[int], limit: int) -> None:
        super().__init__(detector, size)
        self.limit = limit

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps images (N, 3, H, W) to boxes (N, K, 4), scores (N, K) and labels (N, K).

        The score of an empty box is 0.
        """
        parts, anchors = [], self.anchors.split(self.levels)
        for logits, deltas, level in zip(*self.flat_maps(x), anchors, strict=True):
            parts.append(self._best(logits, deltas, level))
        logits, labels, deltas, anchors = (torch.cat(x, 1) for x in zip(*parts, strict=True))
        boxes = self.decode(deltas, anchors)
        extents = boxes[..., 2:] - boxes[..., :2]
        filled = (extents > 0).all(-1)
        return boxes, logits.sigmoid() * filled.to(logits), labels

    def _best(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, ...]:
        anchors = anchors.expand(logits.shape[0], -1, -1)  # not len(), which export would fix
        if logits.shape[1] > self.limit:
            # The best pairs are of the anchors whose best pair is best: far fewer to be sorted.
            best = logits.amax(-1).topk(self.limit).indices
            logits, deltas, anchors = (_rows(part, best) for part in (logits, deltas, anchors))
        pairs = logits.flatten(1)
        values, places = pairs.topk(min(self.limit, pairs.shape[1]))
        rows = places // self.classes
        return values, places - rows * self.classes, _rows(deltas, rows), _rows(anchors, rows)


def build_detector(
    cfg: Config,
    output: str,
    checkpoint: str | None = None,
    size: Sequence[int] | None = None,
    suppression: str = 'onnx',
) -> Network:
    """Builds the whole detector of a config, in evaluation mode and on the CPU.

    Args:
        cfg: A config whose ``model`` is a RetinaNet or an EfficientDet. Its backbone's ``init_cfg``
            is not used.
        output: ``raw`` or ``detections``.
        checkpoint: A file or an address with the weights; None for random ones.
        size: Height and width of the images in pixels, or one number for both; None for what a test
            makes of an image of landscape format.
        suppression: A key of `SUPPRESSIONS`.

    Raises:
        ConfigError: The detector or its post-processing is of another kind, or its images are
            prepared in a way that exported files cannot describe.
        SpecError: The images are too small.
        CheckpointError: The checkpoint cannot be read or is that of another network.
    """
    detector = model_of(cfg)
    require_supported(detector, cfg)
    backbone, test_cfg = detector.backbone, detector.bbox_head.test_cfg
    resolution = backbone.spec.resolution if isinstance(backbone, PRUNet) else 224
    preparation = preparation_of(cfg, CHANNELS, resolution, size)
    if isinstance(backbone, PRUNet):
        require_size(backbone, preparation.size)
    meta = load(detector, checkpoint, 'model') if checkpoint else init(detector)
    detector.eval()
    if output == 'raw':
        module, names, finish = DecodedDetector(detector, preparation.size), OUTPUTS['raw'], None
    else:
        module = CandidateDetector(detector, preparation.size, test_cfg.nms_pre)
        names, finish = CANDIDATES, SUPPRESSIONS[suppression]
    selection = Selection(
        test_cfg.get('score_thr', 0),
        test_cfg.nms_pre,
        test_cfg.nms.iou_threshold,
        test_cfg.max_per_img,
        module.levels,
    )
    classes = class_names(cfg, meta, module.classes)
    usage = Usage(output, classes, preparation, selection)
    metadata = describe(cfg, 'model', preparation.size, checkpoint, usage)
    metadata |= spec_metadata(backbone)
    if finish is not None:
        metadata['suppression'] = suppression
    spec = getattr(backbone, 'spec', None)
    name = f'{type(detector).__name__}_{spec.name if spec else type(backbone).__name__}'
    return Network(
        module.eval(),
        name,
        (CHANNELS, *preparation.size),
        names,
        metadata,
        spec,
        usage,
        detector,
        finish and partial(finish, selection=selection, classes=module.classes),
    )


def model_of(cfg: Config) -> nn.Module:
    """A config's detector as it is built, without the weights that its backbone starts from."""
    from mmdet.registry import MODELS

    config = copy.deepcopy(cfg.model)
    for part in (config, config.get('backbone') or {}):
        part.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config)


def require_supported(detector: nn.Module, cfg: Config) -> None:
    """Refuses detectors that are neither RetinaNets nor EfficientDets.

    Raises:
        ConfigError: Says what it is, or which setting of it cannot be exported.
    """
    from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder

    head = getattr(detector, 'bbox_head', None)
    coder, anchors = (getattr(head, name, None) for name in ('bbox_coder', 'prior_generator'))
    two_maps = not hasattr(head, 'loss_centerness') and not hasattr(head, 'loss_iou')
    if not (
        has_plain_head(detector)
        and type(coder) is DeltaXYWHBBoxCoder
        and type(anchors) is AnchorGenerator
        and two_maps
    ):
        raise ConfigError(
            f'{cfg.filename}: {type(detector).__name__} with {type(head).__name__} cannot be '
            'exported as a whole, only RetinaNet (RetinaHead) and EfficientDet (EfficientDetHead) '
            'can: for any other say --part backbone'
        )
    settings, nms = head.test_cfg or {}, (head.test_cfg or {}).get('nms') or {}
    odd = {
        'model.bbox_head.bbox_coder.add_ctr_clamp': coder.add_ctr_clamp,
        'model.bbox_head.bbox_coder.clip_border': not coder.clip_border,
        'model.test_cfg.nms_pre': settings.get('nms_pre', 0) <= 0,
        'model.test_cfg.min_bbox_size': settings.get('min_bbox_size', 0) != 0,
        'model.test_cfg.max_per_img': settings.get('max_per_img', 0) <= 0,
        'model.test_cfg.nms': nms.get('type') != 'nms'
        or not nms.keys() <= {'type', 'iou_threshold', 'split_thr'},
    }
    for setting, is_odd in odd.items():
        if is_odd:
            raise ConfigError(
                f'{cfg.filename}: {setting} is not as RetinaNet has it, and exported files can do '
                'nothing else: plain NMS per class (type and iou_threshold), nms_pre and '
                'max_per_img above 0, min_bbox_size 0, boxes cut off at the border'
            )


def _flat(level: Tensor, width: int) -> Tensor:
    """Maps of a level (N, anchors * width, H, W) as (N, H * W * anchors, width)."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width)


def _rows(part: Tensor, rows: Tensor) -> Tensor:
    """Rows (N, M) of a part (N, anchors, width), as (N, M, width)."""
    return part.gather(1, rows[..., None].expand(-1, -1, part.shape[-1]))
