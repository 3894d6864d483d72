"""What a work dir tells of a search, whether that has ended or goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prunet_mm.errors import SearchError
from prunet_mm.latency import LatencyTable
from prunet_mm.search.frontier import read_frontier
from prunet_mm.search.history import FILE_NAME, read_history
from prunet_mm.search.record import ASKED, FOUND, SCHEMA_VERSION
from prunet_mm.search.trace import Trace
from prunet_mm.spec import NetworkSpec, SearchSpace

POINTS = 300  # on a line; more are more than pixels

KEYS = ('step', 'progress', 'loss', 'table_kind', 'multiplier', 'multiplier_average', 'budget_ms',
        'expected_ms', 'target_ms', 'widths', 'probabilities', 'keep', 'events')  # fmt: skip
ASKED_KEYS = 'max_iters', 'targets_ms', 'largest_ms', 'space', 'device', 'table_path', 'table'
FOUND_KEYS = 'step', 'predicted_ms', 'measured_ms', 'measured_iqr_ms'


@dataclass(frozen=True)
class Source:
    """A search as its work dir holds it.

    Attributes:
        work_dir: The folder.
        history: All rows, at least one.
        asked: Content of ``asked.json``; empty for a search of before there was one.
        found: Content of ``found.json``; empty while the search goes on.
        spec: The network found; while the search goes on, the likeliest one; None where only a
            space that is not known could tell.
        frontier: Rows of ``frontier.json``.
    """

    work_dir: Path
    history: list[dict]
    asked: dict
    found: dict
    spec: NetworkSpec | None
    frontier: list[dict]

    @classmethod
    def read(cls, work_dir: str | Path) -> Source:
        """Read a work dir.

        Raises:
            SearchError: It holds no search, or none that has come beyond its warm-up, or a file of
                it is damaged.
        """
        work_dir = Path(work_dir)
        path = work_dir / FILE_NAME
        if not path.exists():
            what = 'holds no search' if work_dir.is_dir() else 'is no folder'
            raise SearchError(
                f'{work_dir} {what}: {path} is missing; name the work dir of a search, such as '
                'work_dirs/prunet_digits'
            )
        history = read_history(path, running=True)
        if not history:
            raise SearchError(
                f'{path} has no rows yet: the search is in its warm-up, which decides nothing; try '
                'again after it'
            )
        lacking = [key for key in KEYS if key not in history[0]]
        if lacking:
            raise SearchError(
                f'{path} has rows without {", ".join(lacking)}: it was written by another version '
                'of prunet_mm, which has to make its report'
            )
        asked = _read(work_dir / ASKED, ASKED_KEYS)
        found = _read(work_dir / FOUND, FOUND_KEYS)
        if found and found['step'] < history[-1]['step']:  # derived on the way, by --derive-only
            found = {}
        frontier = read_frontier(work_dir)
        ended = found or (not asked and (work_dir / 'subnet.json').exists())
        if ended:
            spec = NetworkSpec.load(work_dir / 'subnet.json')
        else:
            spec = likeliest(SearchSpace.from_dict(asked['space']), history[-1]) if asked else None
        return cls(work_dir, history, asked, found, spec, frontier)

    @cached_property
    def trace(self) -> Trace:
        """The history, thinned to what can be drawn."""
        return Trace.of(self.history, POINTS)

    @cached_property
    def space(self) -> SearchSpace | None:
        """What is searched."""
        return SearchSpace.from_dict(self.asked['space']) if self.asked else None

    @cached_property
    def table(self) -> LatencyTable | None:
        """By what latencies are predicted."""
        if not self.asked:
            return None
        return LatencyTable.from_dict(self.asked['table'], self.asked['table_path'])

    @property
    def ended(self) -> bool:
        """Whether there is a network that is the search's last word."""
        return bool(self.found) or bool(self.spec and not self.asked)

    @property
    def last(self) -> dict:
        """The last row."""
        return self.history[-1]

    @property
    def name(self) -> str:
        """How it is told from others: the folder's name."""
        return self.work_dir.resolve().name

    @property
    def targets_ms(self) -> list[float]:
        """Latencies asked for, rising."""
        if self.asked:
            return sorted(self.asked['targets_ms'])
        return [row['target_ms'] for row in self.frontier] or [self.last['target_ms']]

    @property
    def predicted_ms(self) -> float | None:
        """Latency of :attr:`spec` by the table."""
        if self.found:
            return self.found['predicted_ms']
        if self.spec and self.table:
            return self.table.predict_ms(self.spec)
        return self.spec.provenance.get('predicted_ms') if self.spec else None

    @property
    def removed_layers(self) -> list[str]:
        """Names of the layers that are gone."""
        return [event['layer'] for event in self.trace.removed if event['kind'] == 'layer']


def likeliest(space: SearchSpace, row: dict) -> NetworkSpec:
    """Return the network of the likeliest choices in a row, at widths rounded to the grid."""
    choices = []
    for position in space.positions():
        chances = row['probabilities'].get(position.name)
        if not chances or row['keep'].get(position.name, 1.0) < 0.5:
            continue
        best = max(chances, key=chances.get)
        (candidate,) = (one for one in position.candidates if one.name == best)
        width = row['widths'].get(f'{position.name}.{best}')
        hidden = min(candidate.widths, key=lambda w: abs(w - width['expected'])) if width else 0
        if candidate.widths and not width:  # its one width is no choice
            hidden = candidate.widths[-1]
        choices.append((position, candidate, hidden))
    return space.network(choices)


def _read(path: Path, keys: Sequence[str]) -> dict:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise SearchError(f'{path}: damaged ({error}).') from None
    version = content.get('schema_version') if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise SearchError(
            f'{path}: found schema_version {version}, expected {SCHEMA_VERSION}: it was written by '
            'another version of prunet_mm, which has to make its report'
        )
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise SearchError(f'{path}: damaged ({", ".join(lacking)} missing).')
    return content
