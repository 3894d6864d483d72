"""What a measurement has found: medians, how well they are known, and drift taken out."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import bdtrik

from prunet_mm.timing.journal import Visit

CONFIDENCE = 0.95
# With fewer values not even the smallest and the largest enclose the median that surely.
FEWEST = 6
WINDOW = 50  # visits whose anchors tell how fast the machine was


class Timing(NamedTuple):
    """What a label took: median and distance between the quartiles in ms, over ``samples``."""

    latency_ms: float
    iqr_ms: float
    samples: int

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Timing:
        """Summarises samples in ms, at least two."""
        low, median, high = statistics.quantiles(samples_ms, n=4, method='inclusive')
        return cls(median, high - low, len(samples_ms))


class Measurement:
    """The samples of visits, by label and round.

    Args:
        visits: In the order in which they were timed.
        drift: (visits,) what samples are divided by, as `drifts` returns it.

    Attributes:
        rounds: How often each target was visited, of the rounds that are over and the present one.
    """

    def __init__(self, visits: Sequence[Visit] = (), drift: Sequence[float] | None = None) -> None:
        self.rounds = max((visit.round + 1 for visit in visits), default=0)
        self._samples: dict[Hashable, dict[int, list[float]]] = {}
        self._busy: dict[Hashable, list[float]] = defaultdict(list)
        for index, visit in enumerate(visits):
            slowness = 1.0 if drift is None else drift[index]
            for label, *laps_ms in zip(visit.labels, *visit.laps_ms, strict=True):
                samples = self._samples.setdefault(label, {}).setdefault(visit.round, [])
                samples.extend(ms / slowness for ms in laps_ms)
                self._busy[label].append(visit.waited)

    def samples_ms(self, label: Hashable) -> list[float]:
        """All samples of a label; none of one that was not reached."""
        return [ms for samples in self._samples.get(label, {}).values() for ms in samples]

    def timing(self, label: Hashable) -> Timing:
        """Median and spread of what carries this label."""
        return Timing.of(self.samples_ms(label))

    def waited(self, label: Hashable) -> float:
        """The part of its time that the label's threads were ready and had no core."""
        return float(np.mean(self._busy[label] or [0.0]))

    def medians_ms(self, label: Hashable) -> dict[int, float]:
        """The median of each round in which the label has samples.

        Samples of one visit have the machine's mood in common; those of different rounds do not.
        So it is from these that the median's interval is found.
        """
        return {n: statistics.median(ms) for n, ms in self._samples.get(label, {}).items()}

    def interval_ms(self, label: Hashable) -> tuple[float, float]:
        """The interval that has the label's median in it, in 95 of 100 cases."""
        return median_interval(list(self.medians_ms(label).values()))

    def ratio(self, label: Hashable, base: Hashable) -> tuple[float, float, float]:
        """How many times as long as ``base`` the label takes: median, interval's ends.

        Compared round by round, so a drift of the machine, which both have in common, is not in it.
        """
        medians_ms, bases_ms = self.medians_ms(label), self.medians_ms(base)
        ratios = [medians_ms[number] / bases_ms[number] for number in medians_ms.keys() & bases_ms]
        return statistics.median(ratios), *median_interval(ratios)

    def speeds(self) -> list[float]:
        """How slow the machine was in each round, by all labels, relative to most rounds."""
        rounds = defaultdict(list)
        for label in self._samples:
            medians_ms = self.medians_ms(label)
            usual_ms = statistics.median(medians_ms.values())
            for number, ms in medians_ms.items():
                rounds[number].append(ms / usual_ms)
        return [statistics.median(ratios) for ratios in rounds.values()]

    def uncertainty_of(self, label: Hashable) -> float:
        """Half the width of the label's interval, relative to its median."""
        return relative_half_width(list(self.medians_ms(label).values()))

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the label whose median is known worst; infinite without samples."""
        return max(map(self.uncertainty_of, self._samples), default=math.inf)


def drifts(visits: Sequence[Visit]) -> np.ndarray:
    """How slow the machine was at each visit, relative to most of the time.

    Every visit times one and the same block beside its own, the anchor. The drift at a visit is
    the anchor's median over the visits nearest to it, of the same session, over its median over
    all. So a measurement that is taken up again another day, when the machine runs at another
    speed, goes on where it was.

    Returns:
        (visits,) factors around 1.
    """
    sessions = defaultdict(list)
    for index, visit in enumerate(visits):
        sessions[visit.session].append(index)
    anchor_ms = np.empty(len(visits))
    for indices in sessions.values():
        for place, index in enumerate(indices):
            start = max(0, min(place - WINDOW // 2, len(indices) - WINDOW))
            near = indices[start : start + WINDOW]
            anchor_ms[index] = np.median([ms for one in near for ms in visits[one].anchor_ms])
    return anchor_ms / np.median(anchor_ms)


def without_drift(visits: Sequence[Visit]) -> Measurement:
    """The samples of all visits, each divided by the drift at its visit."""
    return Measurement(visits, drifts(visits))


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
    return math.floor(bdtrik((1 - CONFIDENCE) / 2, count, 0.5))
