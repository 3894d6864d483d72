"""Pictures of detections beside the annotations, large enough to be read.

Importing this module needs mmdet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from prunet_mm.engine.pictures import common_folder, picture_name

MIN_SIDE = 512  # pixels, of the longer side: text has 7 px and more, whatever the image has


@HOOKS.register_module()
class DetectionDrawingHook(DetVisualizationHook):
    """Draws as mmdet's hook does in a test, but skips images and enlarges small ones.

    mmdet's draws every image of a test whatever its interval is, into a folder that it looks for
    inside of the work dir, and on small images the text hides what was detected.

    Takes mmdet's arguments, of which two mean something else in a test:

    - ``interval``: the first of this many images is drawn.
    - ``test_out_dir``: where PNG files go that have the images' paths inside of the folder that
      holds all of them.
    """

    _folder: str | None = None

    def before_test(self, runner: Runner) -> None:
        if self.draw:
            self._folder = common_folder(runner.test_dataloader.dataset)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        for sample in outputs:
            if self.draw and self._test_index % self.interval == 0:
                self._draw(sample)
            self._test_index += 1

    def _draw(self, sample: DetDataSample) -> None:
        image = mmcv.imread(sample.img_path, channel_order='rgb', backend_args=self.backend_args)
        factor = max(1, math.ceil(MIN_SIDE / max(image.shape[:2])))
        if factor > 1:
            image, sample = mmcv.imrescale(image, factor), enlarged(sample, factor)
        name = picture_name(sample.img_path, self._folder)
        self._visualizer.add_datasample(
            name,
            image,
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            pred_score_thr=self.score_thr,
            out_file=str(Path(self.test_out_dir, f'{name}.png')) if self.test_out_dir else None,
            step=self._test_index,
        )


def enlarged(sample: DetDataSample, factor: int) -> DetDataSample:
    """A copy with all boxes at ``factor`` times the size."""
    copy = sample.clone()
    for name in ('gt_instances', 'pred_instances'):
        if name in copy:
            instances = copy.get(name).clone()  # the copy shares them with the sample
            instances.bboxes = instances.bboxes * factor
            setattr(copy, name, instances)
    return copy
