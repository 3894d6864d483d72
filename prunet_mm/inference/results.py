"""Results of many images as one file, in the form of COCO's annotations."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from prunet_mm.engine.files import write_atomic
from prunet_mm.inference.reading import Findings

DIGITS = 6  # of scores and pixels


class CocoResults:
    """Collects what was found.

    A category's ``id`` is the number of the class in the model. An annotation has a ``score``
    beside what COCO's have; that of a classifier has no box.

    Args:
        classes: Names of the classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.images, self.annotations = [], []
        self.categories = [dict(id=i, name=name) for i, name in enumerate(classes)]

    def add(self, name: str, size: Sequence[int], found: Findings, **about: int) -> None:
        """Adds an image.

        Args:
            name: What it is called.
            size: Height and width.
            found: In its pixels.
            about: More to say of it, such as the number of a frame.
        """
        image = dict(id=len(self.images) + 1, file_name=name, height=size[0], width=size[1])
        self.images.append(image | about)
        for index, (score, label) in enumerate(zip(found.scores, found.labels, strict=True)):
            annotation = dict(
                id=len(self.annotations) + 1,
                image_id=image['id'],
                category_id=int(label),
                score=round(float(score), DIGITS),
            )
            if found.boxes is not None:
                left, top, right, bottom = (round(float(x), DIGITS) for x in found.boxes[index])
                width, height = round(right - left, DIGITS), round(bottom - top, DIGITS)
                area = round(width * height, DIGITS)
                annotation |= dict(bbox=[left, top, width, height], area=area, iscrowd=0)
            self.annotations.append(annotation)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file in one step, an image or an annotation on each line."""
        parts = dict(images=self.images, categories=self.categories, annotations=self.annotations)
        lists = [
            f'"{key}": [\n' + ',\n'.join(map(json.dumps, values)) + '\n]'
            for key, values in parts.items()
        ]
        write_atomic(path, '{\n' + ',\n'.join(lists) + '\n}\n')
