"""How well a median is known: distribution-free, by the order of the samples alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache

CONFIDENCE = 0.95
# With fewer values not even the smallest and the largest enclose the median that surely.
FEWEST = 6


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval that encloses the median of what the values are drawn from, in 95 of 100 cases.

    From the k-th smallest value to the k-th largest, where k is that of the binomial distribution,
    since a value is below the median as often as a coin shows heads (David and Nagaraja, *Order
    Statistics*, section 7.1). Outliers do not move it.

    Args:
        values: Independent of each other; latencies of one visit are not, medians of visits are.

    Returns:
        Lower and upper end; infinitely wide with fewer than six values.
    """
    if len(values) < FEWEST:
        return -math.inf, math.inf
    ordered, rank = sorted(values), _rank(len(values))
    return ordered[rank], ordered[-1 - rank]


def relative_half_width(values: Sequence[float]) -> float:
    """Half the width of the median's interval, relative to the median."""
    low, high = median_interval(values)
    return (high - low) / 2 / statistics.median(values)


@lru_cache(maxsize=4096)
def _rank(count: int) -> int:
    """How many values may be left out at either end, of ``count``."""
    if count > 200:  # the normal approximation is within one rank
        return int(
            count / 2 - statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * count**0.5 / 2
        )
    rank, outside = -1, 0.0
    while True:
        outside += 2 * math.comb(count, rank + 1) / 2**count
        if outside > 1 - CONFIDENCE:
            return rank
        rank += 1
