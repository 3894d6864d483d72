"""What a network's outputs say of an image: boxes or classes, with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

TOP = 5  # classes that a classifier's answer is told by


class Findings(NamedTuple):
    """What was found in an image, best first.

    Attributes:
        scores: (N,), from 0 to 1.
        labels: (N,), numbers of classes.
        boxes: (N, 4) as left, top, right, bottom in pixels; None for a classifier, whose best
            classes these are.
    """

    scores: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None = None

    def above(self, score: float) -> Findings:
        """Those of a detector whose score is as high; a classifier's stay."""
        if self.boxes is None:
            return self
        keep = self.scores >= score
        return Findings(self.scores[keep], self.labels[keep], self.boxes[keep])

    def unscaled(self, scale: tuple[float, float], content: tuple[int, int]) -> Findings:
        """In pixels of the image, which lay at this scale in so much of the input."""
        if self.boxes is None:
            return self
        height, width = content
        boxes = self.boxes.clip(0, (width, height, width, height)) / np.float32(scale * 2)
        return self._replace(boxes=boxes.astype(np.float32))


@dataclass(frozen=True)
class Selection:
    """Which of a detector's boxes are taken: mmdet's ``test_cfg``, and the sizes of its levels.

    Attributes:
        score_threshold: What a score has to exceed.
        candidates: Pairs of box and class that a level gives to the suppression at most.
        iou_threshold: Overlap above which the better of two boxes of a class suppresses the other.
        limit: Boxes of an image at most.
        levels: Number of anchors in each level, in the order of the raw output.
    """

    score_threshold: float
    candidates: int
    iou_threshold: float
    limit: int
    levels: tuple[int, ...]

    def __call__(self, scores: np.ndarray, boxes: np.ndarray) -> Findings:
        """Selects among all anchors of an image, as mmdet does.

        Args:
            scores: (anchors, classes).
            boxes: (anchors, 4).
        """
        parts, at = [], 0
        for count in self.levels:
            level = scores[at : at + count]
            anchors, labels = np.nonzero(level > self.score_threshold)
            values = level[anchors, labels]
            order = np.argsort(-values, kind='stable')[: self.candidates]
            parts.append((values[order], labels[order], boxes[at + anchors[order]]))
            at += count
        found = Findings(*map(np.concatenate, zip(*parts, strict=True)))
        width, height = (found.boxes[:, i + 2] - found.boxes[:, i] for i in (0, 1))
        return self.suppress(Findings(*(x[(width > 0) & (height > 0)] for x in found)))

    def suppress(self, found: Findings) -> Findings:
        """Leaves out what a better box of its class covers, and what is too many."""
        order = np.argsort(-found.scores, kind='stable')
        scores, labels, boxes = (x[order] for x in found)
        kept, open_ = [], np.ones(len(scores), bool)
        for index in range(len(scores)):
            if not open_[index]:
                continue
            kept.append(index)
            if len(kept) == self.limit:
                break
            rivals = (
                index
                + 1
                + np.flatnonzero(open_[index + 1 :] & (labels[index + 1 :] == labels[index]))
            )
            open_[rivals] = iou(boxes[index : index + 1], boxes[rivals])[0] <= self.iou_threshold
        return Findings(scores[kept], labels[kept], boxes[kept])

    def to_dict(self) -> dict:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Selection:
        """From plain data; TypeError where it is something else."""
        return cls(**dict(data, levels=tuple(data['levels'])))


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Overlap of boxes (N, 4) with boxes (M, 4), as (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return shared / np.maximum(union, np.finfo(np.float32).tiny)


def best_classes(logits: np.ndarray) -> Findings:
    """The best classes of an image by its logits (classes,)."""
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    labels = np.argsort(-scores, kind='stable')[:TOP]
    return Findings(scores[labels], labels)


def detections(outputs: Sequence[np.ndarray]) -> list[Findings]:
    """What is in count (N,), boxes (N, M, 4), scores (N, M) and labels (N, M), image by image."""
    return [
        Findings(scores[:count], labels[:count], boxes[:count])
        for count, boxes, scores, labels in zip(*outputs, strict=True)
    ]
