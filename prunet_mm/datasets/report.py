"""What a check of a data set has found: sentences, each with a count and the first example."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prunet_mm.errors import DataError


@dataclass
class Report:
    """What is in a data set, and what is wrong with it.

    Attributes:
        path: The annotation file, or the folder with a folder per class.
        images: Number of images.
        used: Of these, how many are left after the config's filters.
        counts: Number of usable boxes, or of images, by class in the order of the labels.
        unit: What ``counts`` counts: ``'boxes'`` or ``'images'``.
        files: The image files.
        errors: What makes a training or an evaluation fail or mean something else, a sentence each.
        warnings: What is left out or looks odd, likewise.
    """

    path: Path
    images: int = 0
    used: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    unit: str = 'boxes'
    files: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def require(self) -> None:
        """Warns of what is odd and refuses what is wrong.

        Raises:
            DataError: The first thing that is wrong, and how many more there are.
        """
        for sentence in self.warnings:
            warnings.warn(sentence, stacklevel=3)
        if self.errors:
            first, *more = self.errors
            rest = f' (tools/check_dataset.py lists {len(more)} more)' if more else ''
            raise DataError(first + rest)


def some(names: Sequence[object]) -> str:
    """Up to ten of the names, and how many more there are."""
    shown = ', '.join(repr(name) for name in names[:10])
    return f'{shown} and {len(names) - 10} more' if len(names) > 10 else shown
