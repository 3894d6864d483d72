"""How an image becomes a network's input, as data: taken from a config, kept in exported files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import mmcv
import numpy as np

from prunet_mm.errors import ConfigError

if TYPE_CHECKING:
    from mmengine.config import Config

CHANNELS = 'rgb', 'bgr', 'gray'
# Steps that load, look at or pack an image, and leave its pixels as they are.
_IDLE = 'LoadImageFromFile', 'LoadAnnotations', 'PackInputs', 'PackDetInputs'


class Prepared(NamedTuple):
    """An image as a network takes it.

    Attributes:
        pixels: (C, H, W), float32.
        content: Height and width of the part that is not padding, at the upper left.
        scale: By how much the image was enlarged, in x and in y.
    """

    pixels: np.ndarray
    content: tuple[int, int]
    scale: tuple[float, float]


@dataclass(frozen=True)
class Resizing:
    """How an image is brought to another size.

    Attributes:
        mode: ``fit``: in proportion, to a longer side of at most ``scale[0]`` and a shorter one of
            at most ``scale[1]``, and in any case into the input. ``stretch``: to ``scale``, width
            and height. ``edge``: in proportion, to a shorter edge of ``scale[0]``.
        scale: In pixels.
        interpolation: By the name that mmcv has for it.
        backend: ``cv2`` or ``pillow``.
    """

    mode: str
    scale: tuple[int, ...]
    interpolation: str = 'bilinear'
    backend: str = 'cv2'

    def __call__(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The image (H, W) or (H, W, C) at its new size, for an input of this height and width."""
        height, width = image.shape[:2]
        if self.mode == 'stretch':
            new = tuple(self.scale)
        elif self.mode == 'edge':
            (edge,) = self.scale
            new = (edge, int(edge * height / width)), (int(edge * width / height), edge)
            new = new[width >= height]
        else:
            by_scale = mmcv.rescale_size((width, height), tuple(self.scale), return_scale=True)[1]
            factor = min(by_scale, size[1] / width, size[0] / height)
            new = tuple(max(1, int(side * factor + 0.5)) for side in (width, height))
        return mmcv.imresize(image, new, interpolation=self.interpolation, backend=self.backend)


@dataclass(frozen=True)
class Preparation:
    """From an image to the input of a network that takes one size.

    The steps, in this order: channels, resizing, cropping at the centre, normalisation, padding
    with zeros at the right and at the bottom.

    Attributes:
        size: Height and width of the input, in pixels.
        channels: One of `CHANNELS`.
        mean: Taken off each channel of values from 0 to 255; empty for nothing.
        std: What each channel is divided by then.
        resizing: None where images have the right size as they are.
    """

    size: tuple[int, int]
    channels: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resizing: Resizing | None = None

    def __call__(self, image: np.ndarray) -> Prepared:
        """Prepares one image.

        Args:
            image: (H, W, 3), uint8, blue first as OpenCV reads it.
        """
        pixels, original = image, image.shape[:2]
        if self.channels == 'gray':
            pixels = mmcv.bgr2gray(pixels)
        if self.resizing is not None:
            pixels = self.resizing(pixels, self.size)
        scale = pixels.shape[1] / original[1], pixels.shape[0] / original[0]
        top, left = (
            max(0, round((side - wanted) / 2))
            for side, wanted in zip(pixels.shape, self.size, strict=False)
        )
        pixels = pixels[top : top + self.size[0], left : left + self.size[1]]
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if self.channels == 'rgb':
            pixels = pixels[..., ::-1]
        pixels = pixels.transpose(2, 0, 1).astype(np.float32)
        if self.mean:
            mean, std = (np.float32(x).reshape(-1, 1, 1) for x in (self.mean, self.std))
            pixels = (pixels - mean) / std
        content = pixels.shape[1:]
        padding = [(0, 0), *((0, a - b) for a, b in zip(self.size, content, strict=True))]
        return Prepared(np.ascontiguousarray(np.pad(pixels, padding)), content, scale)

    def describe(self) -> str:
        """In words."""
        steps = [dict(rgb='red first', bgr='blue first', gray='gray')[self.channels]]
        if self.resizing is not None:
            scale = ' x '.join(map(str, self.resizing.scale))
            words = dict(
                fit=f'in proportion, into {scale} px at most',
                stretch=f'to {scale} px',
                edge=f'in proportion, to {scale} px on the shorter edge',
            )
            steps.append(f'resized {words[self.resizing.mode]}')
        steps.append('cropped at the centre and padded to the size of the input')
        if self.mean:
            steps.append(f'mean {list(self.mean)}, std {list(self.std)}')
        return '; '.join(steps)

    def to_dict(self) -> dict:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping) -> Preparation:
        """From plain data; AttributeError, KeyError, TypeError or ValueError for anything else."""
        data = {key: tuple(x) if isinstance(x, list) else x for key, x in data.items()}
        if data['channels'] not in CHANNELS:
            raise ValueError(f'channels are {data["channels"]!r}')
        resizing = data.get('resizing')
        if resizing is not None:
            data['resizing'] = Resizing(**dict(resizing, scale=tuple(resizing['scale'])))
        return cls(**data)


def preparation_of(
    cfg: Config, in_channels: int, resolution: int, size: Sequence[int] | None = None
) -> Preparation:
    """What a config does with the images of its test, for a fixed size of input.

    Args:
        cfg: A config for a classifier or a detector.
        in_channels: Channels of the network's input.
        resolution: Size of the input in pixels, where neither pipeline nor ``size`` says it.
        size: Height and width of the input, or one number for both; None for what the pipeline
            leads to: the crop of a classifier, or an image of landscape format padded as in a test
            for a detector.

    Raises:
        ConfigError: The pipeline has a step that cannot be described.
    """
    settings = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    swapped = settings.get('bgr_to_rgb') or settings.get('to_rgb')
    resizing, crop, gray = None, None, False
    for step in _pipeline(cfg):
        kind = step['type'].rpartition('.')[2]
        if kind == 'Gray' or step.get('color_type') == 'grayscale':
            gray = True
        elif kind in ('Resize', 'ResizeEdge') and crop is None and resizing is None:
            resizing = _resizing(cfg, step)
        elif kind == 'CenterCrop' and crop is None:
            crop = tuple(_pair(step['crop_size'])[::-1])
        elif kind not in _IDLE:
            raise _unknown(cfg, step)
    if in_channels == 1:
        gray = True
    if size is not None:
        size = tuple(_pair(size))
        resizing = _for_size(resizing, crop, size)
    elif crop is not None:
        size = crop
    elif resizing is not None and resizing.mode != 'edge':
        divisor = settings.get('pad_size_divisor', 1)
        size = tuple(math.ceil(side / divisor) * divisor for side in reversed(resizing.scale))
    return Preparation(
        size=size or (resolution, resolution),
        channels='gray' if gray else 'rgb' if swapped else 'bgr',
        mean=tuple(settings.get('mean') or ()),
        std=tuple(settings.get('std') or ()),
        resizing=resizing,
    )


def _pipeline(cfg: Config) -> list[Mapping]:
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    dataset = loader.get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset.get('pipeline') or []


def _resizing(cfg: Config, step: Mapping) -> Resizing:
    options = {key: step[key] for key in ('interpolation', 'backend') if key in step}
    kind, scale = step['type'].rpartition('.')[2], step.get('scale')
    if scale is None or step.get('edge', 'short') != 'short':
        raise _unknown(cfg, step)
    if kind == 'ResizeEdge':
        return Resizing('edge', (scale,), **options)
    if step.get('keep_ratio'):
        return Resizing('fit', tuple(sorted(_pair(scale), reverse=True)), **options)
    return Resizing('stretch', tuple(_pair(scale)), **options)


def _for_size(
    resizing: Resizing | None, crop: Sequence[int] | None, size: Sequence[int]
) -> Resizing | None:
    """The same for another input: as much of an image is cropped away, in proportion."""
    if resizing is None or resizing.mode == 'fit':
        return resizing
    if resizing.mode == 'stretch':
        scale = size[::-1]
    else:
        ratio = max(a / b for a, b in zip(size, crop or size, strict=True))
        scale = (max(*size, round(resizing.scale[0] * ratio)),)
    return Resizing(resizing.mode, tuple(scale), resizing.interpolation, resizing.backend)


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _unknown(cfg: Config, step: Mapping) -> ConfigError:
    return ConfigError(
        f'{cfg.filename}: the test pipeline has a step {dict(step)}, while exported files can say '
        'of an image that it is resized (Resize to a scale, ResizeEdge to a short edge), cropped '
        'at the centre, turned to gray and normalised'
    )
