"""Pictures of classified images, one file for each.

Importing this module needs mmpretrain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.engine import VisualizationHook
from mmpretrain.structures import DataSample
from torch import Tensor

from prunet_mm.engine.pictures import common_folder, picture_name


@HOOKS.register_module()
class ClassificationDrawingHook(VisualizationHook):
    """Draws as mmpretrain's hook does in a test, but into a file for every image.

    mmpretrain's names pictures by the base names of the images, which repeat themselves in class
    folders, and counts images by the size of the batch at hand, which is wrong in a smaller last
    one.

    Takes mmpretrain's arguments. In ``out_dir``, PNG files have the images' paths inside of the
    folder that holds all of them, or the numbers of images without a file.
    """

    def before_test(self, runner: Runner) -> None:
        self._folder = common_folder(runner.test_dataloader.dataset) if self.enable else None
        self._drawn = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
    ) -> None:
        images = data_batch['inputs']
        if images[0].ndim == 4:  # a batch for each view of test-time augmentation
            images = images[0]
        for image, sample in zip(images, outputs, strict=True):
            if self.enable and self._drawn % self.interval == 0:
                self._draw(image, sample)
            self._drawn += 1

    def _draw(self, image: Tensor, sample: DataSample) -> None:
        path = sample.get('img_path')
        name = picture_name(path, self._folder) if path else str(self._drawn)
        self._visualizer.visualize_cls(
            image=image.permute(1, 2, 0).cpu().numpy().astype('uint8'),
            data_sample=sample,
            name=name,
            out_file=str(Path(self.out_dir, f'{name}.png')) if self.out_dir else None,
            **self.draw_args,
        )
