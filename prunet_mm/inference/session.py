"""Images through a predictor, one by one and timed, to pictures and results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import DataError, PrunetError
from prunet_mm.inference.drawing import draw
from prunet_mm.inference.predictors import Predictor
from prunet_mm.inference.reading import Findings
from prunet_mm.inference.results import CocoResults
from prunet_mm.inference.sources import Source, Video, read_image

PARTS = 'reading', 'preparing', 'network', 'post-processing'
JPEG = '.jpg', '.jpeg'


class Session:
    """Runs a predictor on sources, draws into a folder and keeps what was found.

    Args:
        predictor: What finds something.
        folder: Where pictures go: PNG, or JPEG and MP4 where the source is one or a video.
        min_score: Of boxes that are drawn; the results have all.

    Attributes:
        results: All that was found.
        times_ms: For each image what each of `PARTS` took, in ms.
        pictures: Files that were drawn.
    """

    def __init__(self, predictor: Predictor, folder: Path, min_score: float) -> None:
        self.predictor = predictor
        self.folder = folder
        self.min_score = min_score
        self.results = CocoResults(predictor.classes)
        self.times_ms: list[list[float]] = []
        self.pictures: list[Path] = []

    def process(self, source: Source) -> None:
        """Finds, draws and tells what is in an image or in the frames of a video.

        Raises:
            DataError: It cannot be read.
        """
        if source.is_video:
            self._video(source)
        else:
            picture = self._image(lambda: read_image(source.path), source.name.as_posix())
            suffix = source.path.suffix.lower()
            path = self._picture_path(source, suffix if suffix in JPEG else '.png')
            write_atomic(path, cv2.imencode(path.suffix, picture)[1].tobytes())
            self.pictures.append(path)

    def _video(self, source: Source) -> None:
        video, name, writer = Video(source.path), source.name.as_posix(), None
        path = self._picture_path(source, '.mp4')
        unfinished = path.with_name(f'.{path.stem}.tmp.mp4')
        try:
            for number, read in enumerate(video):
                picture = self._image(read, name, frame=number)
                if writer is None:
                    writer = _video_writer(unfinished, video.rate, picture)
                writer.write(picture)
            if writer is None:
                raise DataError(f'{source.path}: has no frame that can be read')
        finally:
            if writer is not None:
                writer.release()
                os.replace(unfinished, path)
                self.pictures.append(path)

    def _image(self, read: Callable[[], np.ndarray], name: str, **about: int) -> np.ndarray:
        """The picture of what was found in an image that ``read`` returns."""
        stamps = [time.perf_counter()]
        image = read()
        stamps.append(time.perf_counter())
        prepared = self.predictor.prepare(image)
        stamps.append(time.perf_counter())
        outputs = self.predictor.run(prepared)
        stamps.append(time.perf_counter())
        found = self.predictor.read(outputs, prepared)
        stamps.append(time.perf_counter())
        self.times_ms.append([1e3 * (b - a) for a, b in zip(stamps, stamps[1:], strict=False)])
        self.results.add(name, image.shape[:2], found, **about)
        shown = found.above(self.min_score)
        label = f'{name}, frame {about["frame"]}' if about else name
        print(f'{label}: {self._summary(shown)}; {in_parts(self.times_ms[-1])}', flush=True)
        return draw(image, shown, self.predictor.classes)

    def _summary(self, found: Findings) -> str:
        names = [self.predictor.classes[label] for label in found.labels]
        if found.boxes is None:
            return f'{names[0]} {100 * found.scores[0]:.1f} %'
        counts = [f'{names.count(name)} x {name}' for name in dict.fromkeys(names)]
        return ', '.join(counts) or 'nothing'

    def _picture_path(self, source: Source, suffix: str) -> Path:
        """A file of its own for every source, also where two have the same name."""
        path, number = (self.folder / source.name).with_suffix(suffix), 1
        while path in self.pictures:
            number += 1
            path = path.with_stem(f'{source.name.stem}_{number}')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PrunetError(f'cannot make the folder of {path}: {error.strerror}') from error
        return path


def _video_writer(path: Path, rate: float, like: np.ndarray) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, like.shape[1::-1])
    if not writer.isOpened():
        raise PrunetError(f'{path}: this OpenCV cannot write videos: take single frames')
    return writer


def in_parts(times_ms: list[float]) -> str:
    """A sum of times and what it is made of."""
    parts = ' + '.join(f'{name} {ms:.1f}' for name, ms in zip(PARTS, times_ms, strict=True))
    return f'{sum(times_ms):.1f} ms = {parts}'
