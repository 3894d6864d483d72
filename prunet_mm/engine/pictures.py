"""Names of pictures of images, one for each, in folders like those of the images."""

from __future__ import annotations

import os
from typing import Any


def common_folder(dataset: Any) -> str | None:
    """The innermost folder around all images of a data set, None if one of them is in no file."""
    parents = set()
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('img_path')
        if path is None:
            return None
        parents.add(os.path.dirname(os.path.abspath(path)))
    return os.path.commonpath(parents) if parents else None


def picture_name(image: str | os.PathLike, folder: str | None) -> str:
    """The path of an image inside of a folder, of which base names may repeat themselves.

    Args:
        image: Its path.
        folder: The folder, None to take the base name alone.
    """
    return os.path.relpath(image, folder) if folder else os.path.basename(image)
