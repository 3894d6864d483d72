"""Data sets that are not where a config expects them."""

from __future__ import annotations

from pathlib import Path

from prunet_mm.errors import DataError

EMBEDDED = "scikit-learn's digits need no files: see configs/search/prunet_digits.py"


def require_data(dataset: dict, layout: str | None = None) -> None:
    """Check that the folders which a data set's config names are there.

    Args:
        dataset: The config; ``data_root`` and ``data_prefix`` are looked at where it has them.
        layout: The config's ``data_layout``: what is expected, in words.

    Raises:
        DataError: A folder is missing or empty.
    """
    root = dataset.get('data_root')
    if not root:
        return
    prefix = dataset.get('data_prefix') or ''
    parts = list(prefix.values()) if isinstance(prefix, dict) else [prefix]
    for folder in [Path(root), *(Path(root, part) for part in parts)]:
        wrong = 'no folder' if not folder.is_dir() else '' if any(folder.iterdir()) else 'empty'
        if wrong:
            expected = f'; expected are {layout}' if layout else ''
            raise DataError(f'The images are missing: {folder} is {wrong}{expected}; {EMBEDDED}.')
