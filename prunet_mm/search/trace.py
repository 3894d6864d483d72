"""A history as its readers, the pictures and the report, need it: what went when, and lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

REMOVALS = ('candidate', 'settled', 'layer')


@dataclass(frozen=True)
class Trace:
    """The course of a search.

    Attributes:
        rows: Rows of the history, perhaps not all of them; at least one.
        removed: Every removal in order: its event (``kind`` is one of :data:`REMOVALS`) and
            ``step``. Of a layer, ``probability`` is the keep coefficient.
        judged: Every event at which the network was looked at that would have been derived.
        imitated: Candidates that imitate a trained layer: its event, with the share of the layer's
            output that the candidate left ``unexplained`` before the first step.
    """

    rows: Sequence[dict]
    removed: Sequence[dict]
    judged: Sequence[dict] = ()
    imitated: Sequence[dict] = ()

    @classmethod
    def of(cls, history: Sequence[dict], points: int | None = None) -> Trace:
        """Read a history.

        Args:
            history: All rows of a ``history.jsonl``, at least one.
            points: About how many rows to keep, evenly spaced; the last one and those around
                removals and milestones are kept, too. None for all.
        """
        removed, judged, kept, before = [], [], {len(history) - 1}, history[0]
        for index, row in enumerate(history):
            events = [event for event in row['events'] if event['kind'] in REMOVALS]
            removed += [dict(event, step=row['step']) for event in events]
            judged += [dict(e, step=row['step']) for e in row['events'] if 'derived_ms' in e]
            if events or bool(row['keep']) != bool(before['keep']):
                kept |= {max(index - 1, 0), index}
            before = row
        stride = math.ceil(len(history) / points) if points else 1
        kept |= {*range(0, len(history), stride)}
        imitated = [event for event in history[0]['events'] if event['kind'] == 'imitation']
        return cls([history[index] for index in sorted(kept)], removed, judged, imitated)

    @property
    def first(self) -> dict:
        """The row of the first architecture step."""
        return self.rows[0]

    @property
    def last(self) -> dict:
        """The row of the last one."""
        return self.rows[-1]

    def end(self, layer: str, candidate: str | None = None) -> dict | None:
        """Return the removal of a layer, or of a candidate with or without its layer, if any."""
        for event in self.removed:
            if event['layer'] == layer and event.get('candidate', candidate) == candidate:
                return event
        return None

    def milestones(self) -> dict[str, int]:
        """Return the steps at which all layers changed at once, by what happened, in words."""
        found = {}
        for before, row in pairwise(self.rows):
            if row['keep'] and not before['keep']:
                found['skips open'] = row['step']
            elif not row['keep'] and any(name in row['probabilities'] for name in before['keep']):
                found['choices settled'] = row['step']
        steps = [event['step'] for event in self.removed if event['kind'] == 'settled']
        return found | ({'choices settled': min(steps)} if steps else {})

    def line(
        self, value: Callable[[dict], float | None], end: dict | None = None
    ) -> tuple[list[int], list[float]]:
        """Return steps and values of what exists in some of the rows.

        Args:
            value: Takes a row; returns None where what is drawn does not exist.
            end: Its removal, up to which the line goes.
        """
        points = [(row['step'], number) for row in self.rows if (number := value(row)) is not None]
        if points and end:  # the row of a removal no longer has what was removed
            points.append((end['step'], points[-1][1]))
        return [step for step, _ in points], [number for _, number in points]

    def left(self, layer: str) -> str:
        """Return what was left of a layer in the end, in words."""
        if event := self.end(layer):
            return f'removed at step {event["step"]}'
        left = self.last['probabilities'].get(layer, ())
        return ', '.join(left) if len(left) == 1 else f'{len(left)} candidates left'

    def width_left(self, layer: str) -> str:
        """Return the same with its hidden width in channels."""
        text, last = self.left(layer), self.last
        left = last['probabilities'].get(layer, ())
        if len(left) != 1:
            return text
        width = last['widths'].get(f'{layer}.{next(iter(left))}')
        if width is None:
            return f'{text}, no hidden width'
        return f'{text}, {width["expected"]:.0f} of {width["widest"]}'
