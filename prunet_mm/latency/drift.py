"""Takes out of samples what a machine got slower or faster by while they were taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from prunet_mm.latency.journal import Visit
from prunet_mm.latency.measure import Measurement

WINDOW = 50


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
    result = Measurement()
    for visit, drift in zip(visits, drifts(visits), strict=True):
        result.rounds = visit.round + 1
        for label, *laps_ms in zip(visit.labels, *visit.laps_ms, strict=True):
            result.add(label, [ms / drift for ms in laps_ms])
    return result
