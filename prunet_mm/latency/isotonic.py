"""Isotonic regression: the nearest sequence that never falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def isotonic(values: Sequence[float]) -> np.ndarray:
    """The never falling sequence with the least squared distance from ``values``.

    Pool adjacent violators, after *An Empirical Distribution Function for Sampling with Incomplete
    Information* (Ayer et al., 1955): wherever a value is below the one in front of it, both become
    their mean, and so on with the pools.

    Args:
        values: (n,) numbers in any order.

    Returns:
        (n,) numbers, each at least as large as the one in front of it.
    """
    pools: list[tuple[float, int]] = []  # mean and size
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            other, count = pools.pop()
            mean = (mean * size + other * count) / (size + count)
            size += count
        pools.append((mean, size))
    means, sizes = zip(*pools, strict=True) if pools else ((), ())
    return np.repeat(np.asarray(means, dtype=float), sizes)
