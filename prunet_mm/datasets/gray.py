"""Images of one channel, whatever they are read as."""

from __future__ import annotations

import mmcv
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Gray(BaseTransform):
    """Turns an image (H, W, 3), blue first, to gray (H, W, 1); one of one channel stays.

    For networks of one channel: inferencers of OpenMMLab read all images in colour.

    Changes ``img``.
    """

    def transform(self, results: dict) -> dict:
        """Changes a sample."""
        image = results['img']
        if image.ndim == 3 and image.shape[2] == 3:
            results['img'] = mmcv.bgr2gray(image, keepdim=True)
        return results
