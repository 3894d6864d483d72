"""The images that a command line names: files, folders and videos."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import mmcv
import numpy as np

from prunet_mm.errors import DataError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.dataset import BaseDataset

IMAGES = '.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp'
VIDEOS = '.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg'


class Source(NamedTuple):
    """A file with an image or a video.

    Attributes:
        path: Where it is.
        name: What its results are called: its path in the folder that was named, or its name.
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether it holds several images."""
        return self.path.suffix.lower() in VIDEOS


def find_sources(paths: Sequence[str]) -> list[Source]:
    """The files behind paths, those in folders in the order of their names.

    Raises:
        DataError: There is no such path, a folder has no image, or a file has the suffix of neither
            image nor video.
    """
    sources = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.rglob('*') if _is_known(file))
            if not files:
                raise DataError(f'{path}: there is no image in this folder ({", ".join(IMAGES)})')
            sources += [Source(file, file.relative_to(path)) for file in files]
        elif not path.is_file():
            raise DataError(f'{path}: there is no such image, folder or video')
        elif not _is_known(path):
            raise DataError(
                f'{path}: takes images ({", ".join(IMAGES)}), videos ({", ".join(VIDEOS)}) and '
                'folders of them'
            )
        else:
            sources.append(Source(path, Path(path.name)))
    return sources


def _is_known(file: Path) -> bool:
    return file.suffix.lower() in IMAGES + VIDEOS and file.is_file()


def test_dataset(cfg: Config) -> BaseDataset:
    """The data set of a config's test.

    Raises:
        DataError: The data is not where the config says.
    """
    from mmengine.registry import DATASETS, DefaultScope

    from prunet_mm.datasets.layout import require_data

    require_data(cfg, 'test')
    quiet = contextlib.redirect_stdout(io.StringIO())  # pycocotools tells of its index
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), quiet:
        return DATASETS.build(cfg.test_dataloader.dataset)


def test_images(cfg: Config, count: int) -> list[Path]:
    """Some images of a config's test, spread over all of it.

    Raises:
        DataError: The data is not where the config says.
    """
    dataset = test_dataset(cfg)
    step = max(1, len(dataset) // count)
    numbers = range(0, len(dataset), step)[:count]
    return [Path(dataset.get_data_info(number)['img_path']) for number in numbers]


def read_image(path: Path) -> np.ndarray:
    """An image (H, W, 3), uint8, blue first, turned upright.

    Raises:
        DataError: The file cannot be read as one.
    """
    try:
        image = mmcv.imread(path)
    except (OSError, cv2.error, ValueError) as error:
        raise DataError(f'{path}: cannot be read ({error})') from error
    if image is None:
        raise DataError(f'{path}: is not an image that can be read')
    return image


class Video:
    """The frames of a video.

    Args:
        path: The file.

    Attributes:
        rate: Frames per second.

    Raises:
        DataError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        if not self._capture.isOpened():
            raise DataError(f'{path}: is not a video that can be read')

    def __iter__(self) -> Iterator[Callable[[], np.ndarray]]:
        """For each frame what decodes it, to (H, W, 3), uint8, blue first; in their order."""
        while self._capture.grab():
            yield lambda: self._capture.retrieve()[1]
