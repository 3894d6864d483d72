"""COCO's metric over the images that were predicted on, whatever numbers the file gives to things.

Importing this module needs mmdet; its registry does when a metric is first looked up there.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import load


@METRICS.register_module()
class ExactCocoMetric(CocoMetric):
    """Takes mmdet's arguments, and differs from its metric in what goes wrong there without a word.

    - pycocotools takes a match with annotation 0 for none, and fails with names as ids: annotations
      are numbered anew.
    - It sorts categories by their ids, while mmdet names the results by class in the file's order:
      categories are numbered anew in that order.
    - Images that the data set leaves out (``indices``, ``filter_cfg``) count as missed there: they
      are left out here, too, with a warning. One that it repeats counts once.
    - Where nothing at all is detected there are no metrics: here they are 0.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        *args: Any,
        sort_categories: bool = False,
        backend_args: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(None, *args, backend_args=backend_args, **kwargs)
        if ann_file is not None:
            truth = load(ann_file, file_format='json', backend_args=backend_args)
            if sort_categories:
                truth['categories'].sort(key=lambda category: category['id'])
            self._coco_api = _GroundTruth(truth)

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """The metrics by name, NaN for a class without any box."""
        results = list({truth['img_id']: (truth, found) for truth, found in results}.values())
        if self._coco_api is None:
            with tempfile.TemporaryDirectory() as folder:
                file = self.gt_to_coco_json([truth for truth, _ in results], f'{folder}/truth')
                self._coco_api = _GroundTruth(load(file))
        self.img_ids = [truth['img_id'] for truth, _ in results]
        annotated = len(self._coco_api.imgs)
        if len(results) < annotated:
            warnings.warn(
                f'evaluated on {len(results)} of {annotated} annotated images, since the data set '
                'leaves out the others',
                stacklevel=2,
            )
        return super().compute_metrics(results)


class _GroundTruth(COCO):
    """The index of annotations, numbered from 1 on in the order of the file."""

    def __init__(self, content: Mapping) -> None:
        super().__init__()
        number = {category['id']: i for i, category in enumerate(content['categories'], 1)}
        annotations = [a for a in content.get('annotations', []) if a['category_id'] in number]
        self.dataset = dict(
            images=content['images'],
            categories=[dict(c, id=number[c['id']]) for c in content['categories']],
            annotations=[
                dict(a, id=i, category_id=number[a['category_id']])
                for i, a in enumerate(annotations, 1)
            ],
        )
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def loadRes(self, results: list[dict]) -> COCO:  # noqa: N802
        if results:
            return super().loadRes(results)
        return _GroundTruth(dict(self.dataset, annotations=[]))
