"""What a search does to a batch before networks see it: once for all that it compares."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from prunet_mm.errors import ConfigError


def preprocess(preprocessor: nn.Module, batch: dict) -> tuple:
    """Return images and targets as a model's data preprocessor makes them in training.

    Args:
        preprocessor: Of an mmengine model.
        batch: As collated; it stays as it is.
    """
    if getattr(preprocessor, 'batch_augments', None):  # they change boxes and pixels in place
        batch = copy.deepcopy(batch)
    data = preprocessor(batch, True)
    return data['inputs'], data.get('data_samples')


def halved(images, samples: list | None):
    """Return images of half the height and width.

    Raises:
        ConfigError: The targets have places in the images.
    """
    if any('gt_instances' in sample for sample in samples or ()):
        raise ConfigError(
            'train_cfg.small_images is for classifiers: found boxes, which would have to shrink '
            'with the images. Set it to 0.'
        )
    return F.avg_pool2d(images, 2)


def channels_last(images):
    """Return images in the layout that convolutions are fastest on."""
    if torch.is_tensor(images) and images.dim() == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images
