"""Whether an exported detector finds what mmdet's own does, on real images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunet_mm.deploy.export import Deviation, compare, require_small, write_checked
from prunet_mm.deploy.formats import FORMATS, OPSET, Call
from prunet_mm.deploy.network import Network
from prunet_mm.deploy.suppression import UP_TO_PLUGIN
from prunet_mm.errors import PrunetError
from prunet_mm.inference.reading import Findings, iou

MIN_IOU = 0.99
MAX_SCORE_ERROR = 1e-3
LARGER_BATCH = 3


class Agreement(NamedTuple):
    """How well an exported detector agrees with mmdet's.

    Attributes:
        runtime: What ran the file.
        images: Number of images.
        boxes: What mmdet has found in them.
        iou: Smallest overlap of two boxes that are the same.
        score_error: Largest difference of their scores.
        deviations: Those of the raw outputs, where the file has them.
    """

    runtime: str
    images: int
    boxes: int
    iou: float
    score_error: float
    deviations: list[Deviation]


def export_detector(
    network: Network,
    form: str,
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    opset: int = OPSET,
) -> list[Agreement]:
    """Writes a detector to a file if the file finds what mmdet's own ``predict`` does.

    Args:
        network: One of `build_detector`; stays as it is.
        form: A key of `FORMATS`.
        path: The file, which is replaced in one step.
        images: At least one image (H, W, 3), uint8, blue first. They go through the network one
            alone and the others in batches.
        opset: Of ONNX.

    Returns:
        What the check has found, for each runtime that is here.

    Raises:
        PrunetError: The check fails, or the file cannot be written; there is no new file then.
    """
    pixels = [torch.from_numpy(network.usage.preparation(image).pixels) for image in images]
    rest = pixels[1:] or pixels * LARGER_BATCH
    batches = [torch.stack(pixels[:1])]
    batches += [
        torch.stack(rest[at : at + LARGER_BATCH]) for at in range(0, len(rest), LARGER_BATCH)
    ]
    wanted = [found for x in batches for found in mmdet_finds(network, x)]

    def check(name: str, call: Call) -> Agreement:
        deviations = []
        if network.usage.output == 'raw':
            deviations = compare(lambda x: mmdet_boxes(network, x), network.outputs, call, batches)
            require_small(deviations, path)
        found = [found for x in batches for found in network.usage.read(_arrays(call(x)))]
        return _agreement(name, wanted, found, network, path)._replace(deviations=deviations)

    has_plugin = network.metadata.get('suppression') == 'tensorrt'
    runtimes = [UP_TO_PLUGIN] if has_plugin else FORMATS[form].installed()
    return write_checked(network, form, path, check, opset, runtimes)


def mmdet_finds(network: Network, x: Tensor) -> list[Findings]:
    """What mmdet's ``predict`` finds in images (N, 3, H, W) that fill the input."""
    from mmdet.structures import DetDataSample

    meta = dict(img_shape=network.size, ori_shape=network.size, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=meta) for _ in x]
    with torch.no_grad():
        samples = network.detector.predict(x, samples)
    found = [sample.pred_instances for sample in samples]
    return [Findings(*_arrays((one.scores, one.labels, one.bboxes))) for one in found]


def mmdet_boxes(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N, anchors, classes) and boxes (N, anchors, 4) by mmdet's anchors and coder."""
    head = network.detector.bbox_head
    maps = network.detector(x, mode='tensor')
    sizes = [level.shape[-2:] for level in maps[0]]
    logits, deltas = ([y.permute(0, 2, 3, 1).flatten(1, 2) for y in levels] for levels in maps)
    priors = torch.cat(head.prior_generator.grid_priors(sizes, device=x.device))
    scores = torch.cat([y.reshape(len(x), -1, head.cls_out_channels) for y in logits], 1).sigmoid()
    deltas = torch.cat([y.reshape(len(x), -1, 4) for y in deltas], 1)
    boxes = [head.bbox_coder.decode(priors, one, max_shape=network.size) for one in deltas]
    return scores, torch.stack(boxes)


def _arrays(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]


def _agreement(
    runtime: str,
    wanted: Sequence[Findings],
    found: Sequence[Findings],
    network: Network,
    path: str | os.PathLike,
) -> Agreement:
    ious, errors = [1.0], [0.0]
    for number, (theirs, ours) in enumerate(zip(wanted, found, strict=True)):
        pairs = matches(theirs, ours)
        ious += [overlap for _, _, overlap in pairs]
        errors += [abs(float(theirs.scores[i] - ours.scores[j])) for i, j, _ in pairs]
        lost = np.setdiff1d(np.arange(len(theirs.scores)), [i for i, _, _ in pairs])
        added = np.setdiff1d(np.arange(len(ours.scores)), [j for _, j, _ in pairs])
        for findings, others, what in ((theirs, lost, 'lacks'), (ours, added, 'adds')):
            for index in others:
                if not _on_the_edge(findings, index, network):
                    box = ', '.join(f'{side:.1f}' for side in findings.boxes[index])
                    raise PrunetError(
                        f'{path} was not written: {runtime} {what} a box of class '
                        f'{findings.labels[index]} at ({box}) with score '
                        f'{findings.scores[index]:.4f} in image {number + 1} of the check, '
                        'compared with mmdet'
                    )
        if (np.diff(ours.scores) > 0).any():
            raise PrunetError(f'{path} was not written: in {runtime} boxes are out of order')
    boxes = sum(len(findings.scores) for findings in wanted)
    return Agreement(runtime, len(wanted), boxes, min(ious), max(errors), [])


def matches(first: Findings, second: Findings) -> list[tuple[int, int, float]]:
    """Pairs of boxes that are the same, each with their overlap.

    With both sorted by score, and scores of a pair that close, the order can differ in ties alone.
    """
    pairs, free = [], np.ones(len(second.scores), bool)
    overlaps = iou(first.boxes, second.boxes)
    for index in range(len(first.scores)):
        same = free & (second.labels == first.labels[index])
        same &= np.abs(second.scores - first.scores[index]) < MAX_SCORE_ERROR
        same &= overlaps[index] > MIN_IOU
        if same.any():
            best = int(np.argmax(np.where(same, overlaps[index], 0)))
            free[best] = False
            pairs.append((index, best, float(overlaps[index, best])))
    return pairs


def _on_the_edge(findings: Findings, index: int, network: Network) -> bool:
    """Whether rounding alone decides if the box is there: its score is that of the last."""
    selection, score = network.usage.selection, findings.scores[index]
    full = len(findings.scores) == selection.limit
    last = findings.scores[-1] if full else selection.score_threshold
    return bool(abs(score - last) < MAX_SCORE_ERROR)
