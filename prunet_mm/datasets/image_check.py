"""Whether image files are there, can be read as a training reads them, and have the right size.

A header says most of it and is read in a fraction of a millisecond. What leaves a doubt is decoded
by the loader of the config's own pipeline: formats and notes of orientation that readers treat
differently, and files without their end.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prunet_mm.datasets.dataset_config import type_name
from prunet_mm.datasets.report import Report
from prunet_mm.engine.progress import with_progress

ORIENTATION = 0x0112  # EXIF's note of how a camera was held, 1 to 8
UPRIGHT, ON_THE_SIDE = 1, range(5, 9)
LOADER = 'LoadImageFromFile'
# Formats that all readers agree on, with what a file of them ends in.
ENDS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
# Pixels above which a reader refuses an image.
LIMITS = {'cv2': 2**30, 'pillow': 2 * (1024**3 // 4 // 3)}


class Depth(NamedTuple):
    """How many of a data set's images to look into, evenly spread: headers, and whole images."""

    headers: float
    decoded: float


NOTHING, SAMPLE = Depth(0, 0), Depth(1000, 20)
HEADERS, EVERYTHING = Depth(math.inf, 200), Depth(math.inf, math.inf)


class Problem(NamedTuple):
    """What is wrong with an image."""

    kind: str
    sentence: str
    is_error: bool = True


def check_images(
    report: Report,
    sizes: Sequence[tuple[float, float]] | None,
    pipeline: Sequence[Mapping],
    depth: Depth,
) -> None:
    """Looks for images that are missing, cannot be read or have another size.

    Args:
        report: Names the files and takes what is wrong with them, once for each kind.
        sizes: Width and height of each in pixels by its annotations, None where these have none.
        pipeline: The configs of the transforms, of which one loads.
        depth: How many of the images to open.
    """
    missing = list(_missing(report.files))
    if missing:
        report.errors.append(
            f'{len(missing)} of {len(report.files)} images of {report.path} are missing, the first '
            f'is {missing[0]}'
        )
        return
    opened = list(_spread(len(report.files), depth.headers))
    decoded = set(_spread(len(report.files), depth.decoded))
    loader = _loader(pipeline) if opened else None
    found: dict[str, list[Problem]] = {}
    for index in with_progress(opened, len(opened), f'opening the images of {report.path}'):
        size = sizes[index] if sizes else None
        problem = _problem(report.files[index], size, loader, index in decoded)
        if problem:
            found.setdefault(problem.kind, []).append(problem)
    for problems in found.values():
        sentences = report.errors if problems[0].is_error else report.warnings
        sentences.append(f'{problems[0].sentence} ({len(problems)} of {len(opened)} images)')


def _missing(files: Sequence[str]) -> Iterator[str]:
    """Yields the files that are not there; lists folders, since that is faster than to ask."""
    listed: dict[str, set[str]] = {}
    for file in files:
        parent, base = os.path.split(file)
        if parent not in listed:
            listed[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if base not in listed[parent]:
            yield file


def _spread(count: int, limit: float) -> Iterator[int]:
    if limit >= count:
        return iter(range(count))
    return (i * count // int(limit) for i in range(int(limit)))


def _loader(pipeline: Sequence[Mapping]) -> Any:
    """The pipeline's loader of images, or the default one."""
    from mmcv.transforms import LoadImageFromFile

    for transform in pipeline:
        if type_name(transform) == LOADER:
            return LoadImageFromFile(**{k: v for k, v in transform.items() if k != 'type'})
    return LoadImageFromFile()


def _problem(
    path: str, size: tuple[float, float] | None, loader: Any, decode: bool
) -> Problem | None:
    if os.path.getsize(path) == 0:
        return Problem('empty', f'{path}: is a file of zero bytes')
    header = _read_header(path, decode)
    if header.damage:
        return Problem('damaged', f'{path}: is no whole image: {header.damage}')
    seen = header.size
    if header.turned and loader.color_type in ('color', 'grayscale'):
        seen = seen[::-1]
    if header.doubtful or decode or math.prod(seen) > LIMITS.get(loader.imdecode_backend, math.inf):
        seen = _decoded_size(path, loader)
    if seen is None:
        width, height = header.size
        kind = f'{header.format} file of {width} x {height} pixels' if header.format else 'file'
        return Problem(
            'unreadable',
            f'{path}: is not an image that can be read: the {kind} is none for the '
            f"pipeline's {LOADER} with imdecode_backend={loader.imdecode_backend!r}",
        )
    return _size_problem(path, size, seen, header) if size else None


class _Header(NamedTuple):
    """What PIL reads of a file without decoding it."""

    size: tuple[int, int] = (0, 0)
    format: str | None = None
    orientation: int = UPRIGHT
    doubtful: bool = True  # readers may see something else
    damage: str | None = None

    @property
    def turned(self) -> bool:
        return self.orientation in ON_THE_SIDE


def _read_header(path: str, decode: bool) -> _Header:
    from PIL import Image

    with _any_size():
        try:
            with Image.open(path) as opened:
                size, kind = opened.size, opened.format
                # To look for EXIF data behind the pixels of a PNG, PIL would decode it.
                noted = kind != 'PNG' or 'exif' in opened.info
                orientation = opened.getexif().get(ORIENTATION, UPRIGHT) if noted else UPRIGHT
                if kind == 'TIFF' and orientation in ON_THE_SIDE:
                    size = size[::-1]  # here PIL has turned it already
        except Exception:  # of decoders for many formats; another reader may know the file
            return _Header()
        if kind not in ENDS:
            return _Header(size, kind, orientation)
        damage = None
        if decode or not _has_its_end(path, ENDS[kind]):
            try:
                with Image.open(path) as opened:
                    opened.load()
            except Exception as error:
                damage = ' '.join(str(error).split())
    return _Header(size, kind, orientation, kind == 'PNG' and orientation != UPRIGHT, damage)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """PIL takes large images for attacks; whether the loader does is another question."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _has_its_end(path: str, end: bytes) -> bool:
    with open(path, 'rb') as file:
        file.seek(-min(os.path.getsize(path), len(end)), os.SEEK_END)
        return file.read() == end


def _decoded_size(path: str, loader: Any) -> tuple[int, int] | None:
    """Width and height of what the loader reads, None if it reads nothing."""
    try:
        results = loader.transform(dict(img_path=path))
    except Exception:  # as many as there are readers
        return None
    return results and results['ori_shape'][::-1]


def _size_problem(
    path: str, size: tuple[float, float], seen: tuple[int, int], header: _Header
) -> Problem | None:
    width, height = size
    told = f'{path}: is read as {seen[0]} x {seen[1]} pixels, but has {width} x {height} by its'
    note = f'orientation {header.orientation} in its EXIF data'
    if seen == size:
        if header.orientation == UPRIGHT or (header.turned and width != height):
            return None
        return Problem(
            'turned, perhaps',
            f'{path}: is turned or mirrored as it is read, by {note}: look whether its boxes are '
            'for the image before or after that, which its size does not tell',
            is_error=False,
        )
    if seen == size[::-1] and header.turned and seen != header.size:
        return Problem(
            'turned',
            f'{told} annotations: it is turned as it is read, by {note}, and the boxes are for the '
            "image before that: turn them, or set color_type='color_ignore_orientation' in "
            f'{LOADER}',
        )
    if seen == size[::-1] and header.turned:
        return Problem(
            'not turned',
            f'{told} annotations: the boxes are for the image turned by {note}, which the '
            f"pipeline's {LOADER} does not do: save it turned, or turn the boxes back",
        )
    if seen == size[::-1]:
        return Problem('swapped', f'{told} annotations, which have width and height swapped')
    return Problem('size', f'{told} annotations, which are for an image of another size')
