"""What a search shows at its end: a summary in words, and four pictures."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.search.finalists import describe
from prunet_mm.search.frontier import plot_frontier, read_frontier
from prunet_mm.search.history import FILE_NAME, read_history
from prunet_mm.search.network_plot import plot_network
from prunet_mm.search.plots import plot_candidates, plot_latency, plot_widths
from prunet_mm.search.record import training_options
from prunet_mm.search.rounding import MEASURED_SHARE, SHARE
from prunet_mm.search.trace import Trace
from prunet_mm.search.verdict import verdict

if TYPE_CHECKING:
    from prunet_mm.latency.promise import Promise
    from prunet_mm.search.finalists import Finalist
    from prunet_mm.search.rounding import Rounding
    from prunet_mm.spec import NetworkSpec, SearchSpace
    from prunet_mm.timing.samples import Timing

PICTURES = {
    'widths.png': 'hidden widths, step by step',
    'candidates.png': 'probabilities of the candidates, step by step',
    'latency.png': 'expected latency against the budget, step by step',
    'network.png': 'the network',
    'frontier.png': 'loss against latency, a point per latency asked for',
}
FILES = {
    'report.html': 'all of this with pictures, for a browser',
    'subnet.json': 'the network as data',
    'searched.pth': 'the SuperNet, pruned to that network',
    FILE_NAME: 'the course of the search, one row per architecture step',
}
WIDTH = 96
MOST_LINES = 40  # of removals; beyond it only the telling ones are listed
NEAR_TIE = 0.8


@dataclass(frozen=True)
class Outcome:
    """What a search ended in, beside the network itself.

    Attributes:
        budget_ms: Latency asked for.
        predicted_ms: Latency of the network by the table.
        table_kind: Of the latency table, 'measured' or 'estimated'.
        table_device: Device, backend, dtype, batch and threads of the table, in one line.
        space: What was searched.
        rounding: How the hidden widths were brought to the grid and to the budget.
        finalists: Networks that were judged side by side, the best one, which was taken, first.
        promise: What was measured of the network, on the table's device; None where that is not
            at hand.
        rescaled_by: What the table was multiplied by for this network, since it had misjudged it.
        origin_ms: Predicted latency of the network that the space is around.
        measured_origin: By the clock, in the same run as the network.
        block_ms: Latency of each of the network's ``block_keys()`` by the table, where known.
        derived_loss: Of the network with the SuperNet's weights, on images of the architecture's
            part.
        train_config: The config that trains the network.
        trained: What has weights that training goes on with, beside the backbone; None where it
            is to begin anew.
        other_size: A warning where the images were of another size than the table's; else empty.
    """

    budget_ms: float
    predicted_ms: float
    table_kind: str
    table_device: str
    space: SearchSpace
    rounding: Rounding | None = None
    finalists: Sequence[Finalist] = ()
    promise: Promise | None = None
    rescaled_by: float = 1.0
    origin_ms: float | None = None
    measured_origin: Timing | None = None
    block_ms: Sequence[float] | None = None
    derived_loss: float | None = None
    train_config: str = 'CONFIG'
    other_size: str = ''
    trained: Sequence[str] | None = None

    @property
    def measured(self) -> Timing | None:
        """Latency of the network by the clock, now."""
        return self.promise and self.promise.timing


def write_report(work_dir: str | Path, spec: NetworkSpec, outcome: Outcome) -> str:
    """Draw the pictures of a search into its work dir and sum it up for the screen.

    Where matplotlib is missing, the summary says so instead of naming pictures. Without a history
    only the network is drawn.

    Args:
        work_dir: Holds the ``history.jsonl``.
        spec: The network that was found.
        outcome: What else is known of it.

    Returns:
        Lines of plain ASCII.

    Raises:
        SearchError: The history is damaged.
    """
    work_dir = Path(work_dir)
    history = read_history(work_dir / FILE_NAME) if (work_dir / FILE_NAME).exists() else []
    try:
        _draw(work_dir, history, spec, outcome)
        missing = ''
    except ImportError as error:
        missing = f'Warning: there are no pictures, since matplotlib cannot be imported ({error}).'
    sections = {
        'The budget': _wrapped(verdict(history)) if history else [],
        'The network': [*spec.describe().splitlines(), *_loss(outcome)],
        'Latency': _latency(outcome),
        'Against what it came from': _against(spec, outcome),
        'Widths rounded': _rounding(outcome.rounding),
        'Finalists': _finalists(outcome.finalists),
        'The frontier': _frontier(work_dir),
        'Imitated before the first step': _imitated(history) if history else [],
        'Removed': _removed(history),
        'Files': [*_files(work_dir, missing), *_wrapped(missing)],
        'Next: train it': [_command(outcome, work_dir)],
    }
    return '\n'.join(
        line
        for title, lines in sections.items()
        if lines
        for line in ('', title, '-' * len(title), *lines)
    )


def pictures(work_dir: str | Path) -> list[Path]:
    """Return the pictures that are in a work dir, for instance for mmengine's visualizer."""
    return [path for name in PICTURES if (path := Path(work_dir) / name).exists()]


def _draw(work_dir: Path, history: list[dict], spec: NetworkSpec, outcome: Outcome) -> None:
    removed = []
    if history:
        plot_widths(history, work_dir / 'widths.png')
        plot_candidates(history, work_dir / 'candidates.png')
        plot_latency(
            history,
            work_dir / 'latency.png',
            outcome.table_kind,
            outcome.predicted_ms,
            outcome.measured and outcome.measured[:2],
        )
        removed = [e['layer'] for e in Trace.of(history).removed if e['kind'] == 'layer']
    plot_network(
        spec,
        outcome.space,
        work_dir / 'network.png',
        removed,
        outcome.block_ms,
        outcome.table_kind,
    )
    if rows := read_frontier(work_dir):
        plot_frontier(rows, work_dir / 'frontier.png', outcome.table_kind)


def _command(outcome: Outcome, work_dir: Path) -> str:
    options = training_options(work_dir, outcome.trained)
    return shlex.join(['python', 'tools/train.py', outcome.train_config, '--cfg-options', *options])


def _loss(outcome: Outcome) -> list[str]:
    if outcome.derived_loss is None:
        return []
    return [f"Loss with the SuperNet's weights, not yet trained alone: {outcome.derived_loss:.4f}"]


def _latency(outcome: Outcome) -> list[str]:
    budget_ms, predicted_ms = outcome.budget_ms, outcome.predicted_ms
    estimated = ' (estimated, not measured)' if outcome.table_kind == 'estimated' else ''
    lines = [
        f'budget     {budget_ms:10.4f} ms',
        f'predicted  {predicted_ms:10.4f} ms  {predicted_ms / budget_ms:7.2%} of the budget'
        f'{estimated}',
    ]
    if outcome.measured:
        median_ms, iqr_ms, samples = outcome.measured
        lines.append(
            f'measured   {median_ms:10.4f} ms  {median_ms / predicted_ms:7.2%} of the predicted; '
            f'median of {samples}, IQR {iqr_ms:.4f} ms ({iqr_ms / median_ms:.1%})'
        )
        for sentence in outcome.promise.sentences(budget_ms):
            lines += _wrapped(sentence)
    if outcome.rescaled_by != 1:
        lines += _wrapped(
            f'The table had misjudged this network. Its widths were rounded once more, by the '
            f'table times {outcome.rescaled_by:.3f}, and so is what is predicted here.'
        )
    lines += _wrapped(f'The latency table is {outcome.table_device}.')
    lines += _wrapped(outcome.other_size)
    if outcome.rounding and outcome.rounding.blocked:
        layer, width, more_ms = outcome.rounding.blocked
        lines += _wrapped(
            f'No single granule fits into the {budget_ms - predicted_ms:.4f} ms that are left of '
            f'the budget: the cheapest one, {layer} to {width} channels, takes {more_ms:.4f} ms.'
        )
    elif predicted_ms < (SHARE if outcome.rescaled_by == 1 else MEASURED_SHARE) * budget_ms:
        lines += _wrapped(
            'No wider hidden width is left that would use the rest of the budget: what was chosen '
            'is too fast for it. Search longer, or ask for less.'
        )
    return lines


def _against(spec: NetworkSpec, outcome: Outcome) -> list[str]:
    """What the network costs and keeps of the one that its space is around."""
    origin = outcome.space.origin
    if origin is None or outcome.origin_ms is None:
        return []
    pairs = {
        'predicted': (outcome.predicted_ms, outcome.origin_ms, 'ms'),
        'MACs': (spec.macs() / 1e6, origin.macs() / 1e6, 'million'),
        'parameters': (spec.params() / 1e6, origin.params() / 1e6, 'million'),
        'layers': (len(spec.layers), len(origin.layers), ''),
    }
    if outcome.measured and outcome.measured_origin:
        measured = outcome.measured.latency_ms, outcome.measured_origin.latency_ms
        pairs['measured'] = (*measured, 'ms, in one run')
    return [f'network    {origin.name}'] + [
        f'{name:10} {found:10.4g} of {whole:.4g} {unit}, {found / whole:.1%}'.replace(' ,', ',')
        for name, (found, whole, unit) in pairs.items()
    ]


def _rounding(rounding: Rounding | None) -> list[str]:
    """Where widths were rounded to another one than the nearest."""
    if not rounding or not rounding.moves:
        return []
    lines = [
        f'{layer}  {nearest:5} -> {width:5} channels' for layer, nearest, width in rounding.moves
    ]
    if rounding.granules > 1:
        lines += _wrapped(
            f'The search has not converged to the budget: a layer moved by {rounding.granules} '
            'granules, where one should do. Search longer.'
        )
    return lines


def _finalists(finalists: Sequence[Finalist]) -> list[str]:
    """The networks that were judged, if there was a choice."""
    if len(finalists) < 2:
        return []
    lines = [f'{"loss":>7}  {"behind":>17}  {"scored":>7}  {"ms":>8}  network']
    for one in finalists:
        text = textwrap.wrap(describe(one), WIDTH - 47)
        lines.append(
            f'{one.loss:7.4f}  {one.behind[0]:7.4f} +- {one.behind[1]:.4f}  {one.scored:7.4f}  '
            f'{one.rounding.predicted_ms:8.4f}  {text[0]}'
        )
        lines += [' ' * 47 + more for more in text[1:]]
    return lines


def _frontier(work_dir: Path) -> list[str]:
    """A row per latency that was asked for."""
    rows = read_frontier(work_dir)
    return rows and [
        f'{"asked":>9}  {"predicted":>9}  {"measured":>9}  {"loss":>7}  network',
        *(
            f'{row["target_ms"]:9.4f}  {row["predicted_ms"]:9.4f}  '
            f'{_or_dash(row.get("measured_ms")):>9}  {row["loss"]:7.4f}  '
            f'{work_dir / row["subnet"]}'
            for row in rows
        ),
    ]


def _or_dash(latency_ms: float | None) -> str:
    return '-' if latency_ms is None else f'{latency_ms:.4f}'


def _imitated(history: list[dict]) -> list[str]:
    """What candidates without trained weights left unexplained of their layers' outputs."""
    return [
        f'{event["layer"]:14}  {event["candidate"]:13}  leaves {event["unexplained"]:6.1%}'
        for event in Trace.of(history).imitated
    ]


def _removed(history: list[dict]) -> list[str]:
    """What each tier removed, when and at what probability."""
    if not history:  # a rule has chosen, or the search's files are elsewhere
        return [f'Unknown: there is no {FILE_NAME}.']
    removed, ties = Trace.of(history).removed, _near_ties(history)
    if not removed:
        return ['Nothing.']
    counts = Counter(event['kind'] for event in removed)
    lines = [
        f'{counts["candidate"]} candidates below the threshold, {counts["settled"]} when the '
        f'choices were settled; {counts["layer"]} layers',
        f'{"step":>7}  {"layer":14}  {"what":13}  {"at":>5}  {"lambda":>6}  why',
    ]
    telling = [e for e in removed if e['kind'] == 'layer' or _name(e) in ties]
    for event in removed if len(removed) <= MOST_LINES else telling:
        lines.append(
            f'{event["step"]:7}  {event["layer"]:14}  {event.get("candidate", "the layer"):13}  '
            f'{event["probability"]:5.3f}  {event["multiplier"]:6.3f}  '
            f'{_why(event)}{" *" if _name(event) in ties else ""}'
        )
    if len(removed) > MOST_LINES:
        lines.append(f'... and {len(removed) - len(telling)} more candidates, see {FILE_NAME}.')
    if ties:
        lines += _wrapped(
            '* Nearly a tie with the best one at that step: another seed may choose otherwise.'
        )
    return lines


def _why(event: dict) -> str:
    if 'share' in event:
        why = f'settled, {event["share"]:.0%}'
        if event['rise'] is None:
            return why
        return why + f'; else loss {event["rise"]:+.4f} +- {event["rise_se"]:.4f}'
    if event['kind'] == 'candidate':
        return f'probability < {event["threshold"]:.3f}'
    return (
        f'keep < {event["threshold"]:.3g}: {event["loss_rise"]:+.4f} +- '
        f'{event["loss_rise_se"]:.4f}, worth {event["worth"]:.4f}'
    )


def _near_ties(history: list[dict]) -> set[tuple]:
    """Candidates that were nearly as probable as the best one just before they were removed."""
    return {
        _name(event)
        for before, row in pairwise(history)
        for event in row['events']
        if event['kind'] in ('candidate', 'settled')
        and event['probability'] >= NEAR_TIE * max(before['probabilities'][event['layer']].values())
    }


def _name(event: dict) -> tuple[str, str | None]:
    return event['layer'], event.get('candidate')


def _files(work_dir: Path, missing: str) -> list[str]:
    known = FILES if missing else FILES | PICTURES
    names = {name: what for name, what in known.items() if (work_dir / name).exists()}
    longest = max((len(str(work_dir / name)) for name in names), default=0)
    return [f'{work_dir / name!s:{longest}}  {what}' for name, what in names.items()]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)
