"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from prunet_mm.errors import ConfigError, DataError


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 gray images of handwritten digits, 8 x 8 pixels, in ten classes.

    The test set of the UCI data set *Optical Recognition of Handwritten Digits* (E. Alpaydin and
    C. Kaynak, 1998), as it comes with scikit-learn. A fifth of it, in equal parts of every class,
    is held out as our test split, always the same images.

    A sample is ``img``, uint8 of (8, 8, 1) in 0..255, and ``gt_label``.

    Args:
        split: ``'train'`` (1,437 images) or ``'test'`` (360 images).
        pipeline: Transforms of a sample, such as mmpretrain's.
        **kwargs: As for mmengine's `BaseDataset`.

    Raises:
        ConfigError: There is no such split.
        DataError: scikit-learn is not installed.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(self, split: str, pipeline: Sequence[dict | Callable] = (), **kwargs) -> None:
        if split not in ('train', 'test'):
            raise ConfigError(f"Digits: there is no split {split!r}, only 'train' and 'test'")
        self.split = split
        super().__init__(pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        """The samples of the split, in a fixed order."""
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError:
            raise DataError(
                'the digits data set comes with scikit-learn, which is not installed: '
                'pip install scikit-learn'
            ) from None
        digits = load_digits()
        # 17 levels of gray, spread over the range that image transforms expect.
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        train, test = train_test_split(
            np.arange(len(images)), test_size=0.2, stratify=digits.target, random_state=0
        )
        return [
            dict(img=images[i], gt_label=int(digits.target[i]), img_shape=(8, 8), ori_shape=(8, 8))
            for i in sorted(train if self.split == 'train' else test)
        ]
