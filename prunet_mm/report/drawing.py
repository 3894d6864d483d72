"""The pictures of a report: what its template draws, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prunet_mm.errors import LatencyTableError
from prunet_mm.report.chart import Chart, Line, Mark, padded
from prunet_mm.report.source import Source
from prunet_mm.report.words import KINDS, SIGNS, ms
from prunet_mm.search.figures import INK, OPS, OTHER_OP, PALE, PINK, line_look
from prunet_mm.search.network_plot import NAMES, columns_of
from prunet_mm.spec import NetworkSpec

BLUE, RED = OPS['irb'], OPS['fused_irb']
BUDGET, STEP = '#009E73', 'step of the search'
COMPARED = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#444444', '#b8860b', '#56B4E9')


class Bar(NamedTuple):
    """One bar of several on a common scale; ``percent`` of its full length."""

    label: str
    value: str
    percent: float
    color: str


class Block(NamedTuple):
    """A block of the network as a row: ``percent`` of the widest hidden width, None for none."""

    name: str
    op: str
    color: str
    percent: float | None
    label: str
    facts: str
    share: float | None
    text: str


class Piece(NamedTuple):
    """A stretch of a layer's life: from ``left`` over ``width``, both in percent."""

    left: float
    width: float
    color: str
    dash: bool
    text: str


def latency_bars(source: Source) -> list[Bar]:
    """Compare what was found with what was asked for and with the space's largest network."""
    rows = []
    if source.asked:
        rows.append(('largest of the space', source.asked['largest_ms'], PALE))
    rows += [('asked for', target, BUDGET) for target in source.targets_ms[-1::-1]]
    if source.predicted_ms is not None:
        kind = 'predicted' if source.last['table_kind'] == 'measured' else 'estimated'
        rows.append((kind if source.ended else 'likeliest now', source.predicted_ms, BLUE))
    if source.found.get('measured_ms'):
        rows.append(('measured', source.found['measured_ms'], PINK))
    if kept := source.found.get('promise'):
        rows.append(("at the table's state", kept['at_table_state_ms'], PINK))
    longest = max(value for _, value, _ in rows)
    return [Bar(label, ms(value), 100 * value / longest, c) for label, value, c in rows]


def network(source: Source, spec: NetworkSpec, removed: Sequence[str]) -> list[Block]:
    """Return a network from input to output, a row per place for a layer."""
    times = None
    if source.table:
        try:
            times = [source.table.block_ms(key) for key in spec.block_keys()]
        except LatencyTableError:  # of a network that was derived by another table
            times = None
    total = sum(times) if times else 0
    if source.space:
        columns = [tuple(column) for column in columns_of(spec, source.space, removed, times)]
    else:
        columns = [(row.name, row, 0, None) for row in spec.rows()]
    return [_block(*column, total) for column in columns]


def _block(name, row, widest, latency_ms, total) -> Block:
    if row is None:
        return Block(name, 'skipped', PALE, None, '', '', None, f'{name} is skipped')
    key = row.key
    color = OPS.get(key.op, OTHER_OP)
    facts = f'{key.kernel}×{key.kernel}' if key.op != 'tail' else ''
    facts += f' /{key.stride}' if key.stride > 1 else ''
    facts += ' SE' if key.se else ''
    size = f'{key.out_channels}×{row.height}×{row.width}'
    share = None if latency_ms is None else 100 * latency_ms / total
    hidden = f'hidden {key.hidden}' + (f' of {widest}' if widest else '') if key.hidden else ''
    cost = '' if latency_ms is None else f'{latency_ms:.4g} ms, {share:.1f} % of the blocks'
    text = ', '.join(filter(None, (
        name, NAMES[key.op], f'stride {key.stride}', f'{key.in_channels} → {size}', hidden,
        f'{row.params:,} parameters, {row.macs:,} MACs', cost,
    )))  # fmt: skip
    percent = 100 * key.hidden / (widest or key.hidden) if key.hidden else None
    label = f'{key.hidden}/{widest}' if widest and key.hidden else str(key.hidden or '')
    return Block(name, key.op, color, percent, label, f'{facts} → {size}'.strip(), share, text)


def course(source: Source) -> list[Chart]:
    """Return latency and lambda over time, with every decision."""
    trace = source.trace
    kind = source.last['table_kind']
    marks = [
        Mark(e['step'], None, SIGNS[e['kind']], _told(e), BUDGET if e['kind'] == 'target' else INK)
        for e in decisions(source)
    ]
    uprights = [(step, text) for text, step in trace.milestones().items()]
    derived = [(e['step'], e['derived_ms']) for e in trace.judged if e.get('derived_ms')]
    lines = [
        Line('expected latency', _of(source, 'expected_ms'), BLUE, width=2),
        Line('budget', _of(source, 'budget_ms'), BUDGET, '5 4'),
    ]
    if derived:
        lines.append(Line('derived at a decision', derived, RED, dots=True))
    for target in source.targets_ms:
        ends = [(trace.first['step'], target), (trace.last['step'], target)]
        lines.append(Line(f'asked for: {ms(target)}', ends, INK, '1 3', width=1))
    price = [
        Line('lambda', _of(source, 'multiplier'), BLUE, width=2),
        Line('its moving average', _of(source, 'multiplier_average'), PALE),
    ]
    loss = [Line('task loss of an architecture step', _of(source, 'loss'), BLUE, width=1)]
    return [
        Chart('Latency', lines, STEP, f'ms ({kind})', marks, uprights),
        Chart('Lambda, the price of latency', price, STEP, 'no unit', marks, uprights),
        Chart('Loss', loss, STEP, 'loss', (), uprights),
    ]


def _of(source: Source, key: str) -> list[tuple[float, float]]:
    rows = source.trace.rows
    return [(row['step'], row[key]) for row in rows if row.get(key) is not None]


def decisions(source: Source) -> list[dict]:
    """Return the events that are decisions, in order, each with its step."""
    return [
        dict(event, step=row['step'])
        for row in source.history
        for event in row['events']
        if event['kind'] in KINDS
    ]


def _told(event: dict) -> str:
    what = event.get('layer') or ms(event['target_ms'])
    what = ' '.join(filter(None, (what, event.get('candidate'))))
    return f'step {event["step"]}: {what}, {KINDS[event["kind"]]} at λ {event["multiplier"]:.3f}'


def widths(source: Source) -> list[Chart]:
    """Return the hidden widths over time, a chart per layer."""
    trace, names = source.trace, {}
    for name in trace.first['widths']:
        layer, _, candidate = name.rpartition('.')
        names.setdefault(layer, []).append(candidate)
    charts = []
    for layer, candidates in names.items():
        lines, marks = [], []
        for candidate in candidates:
            end = trace.end(layer, candidate)

            def points(what: str, name=f'{layer}.{candidate}', end=end) -> list[tuple]:
                def value(at: dict) -> float | None:
                    return at['widths'][name][what] if name in at['widths'] else None

                return list(zip(*trace.line(value, end), strict=True))

            line = Line.of_candidate(candidate, points('expected'), (points('lo'), points('hi')))
            lines.append(line)
            marks += _end_mark(line, end)
        first = trace.first['widths']
        widest = max(first[f'{layer}.{candidate}']['widest'] for candidate in candidates)
        note, top = trace.width_left(layer), 1.05 * widest
        charts.append(_panel(source, layer, lines, marks, (0, top), 'channels', note))
    return charts


def candidates(source: Source) -> list[Chart]:
    """Return probabilities of candidates and keep coefficients, a chart per layer with a choice."""
    trace, charts = source.trace, []
    skippable = {layer for row in trace.rows for layer in row['keep']}
    for layer, chances in trace.first['probabilities'].items():
        if len(chances) < 2 and layer not in skippable:
            continue
        lines, marks = [], []
        for candidate in chances:
            end = trace.end(layer, candidate)

            def chance(row: dict, layer=layer, candidate=candidate) -> float | None:
                return row['probabilities'].get(layer, {}).get(candidate)

            points = list(zip(*trace.line(chance, end), strict=True))
            lines.append(Line.of_candidate(candidate, points))
            marks += _end_mark(lines[-1], end)
        kept = trace.line(lambda row, layer=layer: row['keep'].get(layer), trace.end(layer))
        if kept[0]:
            points = list(zip(*kept, strict=True))
            lines.append(Line('keep coefficient', points, PINK, '6 3 1 3'))
        charts.append(
            _panel(source, layer, lines, marks, (0, 1.05), 'probability', trace.left(layer))
        )
    return charts


def _end_mark(line: Line, end: dict | None) -> list[Mark]:
    if not end or end['kind'] not in ('candidate', 'settled'):
        return []
    return [Mark(end['step'], line.points[-1][1], SIGNS[end['kind']], _told(end), line.color)]


def _panel(source: Source, layer: str, lines, marks, y_range, y_label: str, note: str) -> Chart:
    first, last = source.trace.first['step'], source.last['step']
    end = source.trace.end(layer)
    margin = 0.02 * (last - first) or 1
    return Chart(
        layer, lines, STEP, y_label, marks, y_range=y_range, note=note,
        x_range=(first - margin, last + margin), gone_from=end and end['step'],
    )  # fmt: skip


def lives(source: Source) -> list[tuple[str, str, list[Piece]]]:
    """Return for each layer its name, what is left of it, and what was likeliest when."""
    trace = source.trace
    first, last = trace.first['step'], trace.last['step']
    length = max(last - first, 1)
    rows = []
    for layer in trace.first['probabilities']:
        pieces, start, now = [], first, None
        for row in trace.rows:
            chances = row['probabilities'].get(layer)
            likely = None
            if chances:
                away = row['keep'].get(layer, 1.0) < 0.5
                likely = 'skipped' if away else max(chances, key=chances.get)
            if now is not None and likely != now:
                pieces.append(_piece(first, length, start, row['step'], now))
                start = row['step']
            elif now is None:
                start = row['step']
            now = likely
        if now is not None:
            pieces.append(_piece(first, length, start, last, now))
        rows.append((layer, trace.left(layer), pieces))
    return rows


def colors(source: Source) -> list[tuple[str, str]]:
    """Return every candidate with its colour."""
    chances = source.trace.first['probabilities'].values()
    return [
        (name, line_look(name)['color']) for name in sorted({n for one in chances for n in one})
    ]


def _piece(first: int, length: int, start: int, end: int, what: str) -> Piece:
    look = dict(color=PALE) if what == 'skipped' else line_look(what)
    text = f'{what} is likeliest from step {start} to {end}'
    left, width = 100 * (start - first) / length, 100 * (end - start) / length
    return Piece(round(left, 2), round(width, 2), look['color'], what == 'skipped', text)


def table_quality(source: Source) -> Chart | None:
    """Return what the table predicts for random networks against what they took."""
    table = source.table
    if not table or not table.validation:
        return None
    found = table.validation
    points = sorted(zip(found.measured_ms, found.predicted_ms, strict=True))
    low, high = min(map(min, points)) * 0.9, max(map(max, points)) * 1.1
    lines = [
        Line('equal', [(low, low), (high, high)], PALE, width=1),
        Line('5 % more', [(low, 1.05 * low), (high, 1.05 * high)], PALE, '2 3', width=1),
        Line('5 % less', [(low, 0.95 * low), (high, 0.95 * high)], PALE, '2 3', width=1),
        Line('predicted', points, BLUE, dots=True),
    ]
    kind = 'predicted' if table.kind == 'measured' else 'estimated'
    return Chart(
        'Random networks, which the table was not fitted on',
        lines,
        'measured, ms',
        f'{kind}, ms',
        x_range=(low, high),
        y_range=(low, high),
    )


def frontier(sources: Sequence[Source]) -> Chart | None:
    """Return loss against latency of all networks of some searches, if there are several."""
    lines, count = [], 0
    for source, color in zip(sources, COMPARED * len(sources), strict=False):
        rows = source.frontier
        if not rows and source.found:
            rows = [source.found]
        if not rows:
            continue
        count += len(rows)
        of = f'{source.name}: ' if len(sources) > 1 else ''
        predicted = [(row['predicted_ms'], row['loss']) for row in rows]
        if len(rows) > 1:
            lines.append(Line('', predicted, color, '5 4', width=1))
        lines.append(Line(f'{of}predicted', predicted, color, dots=True))
        timed = [(row['measured_ms'], row['loss']) for row in rows if row.get('measured_ms')]
        if timed and len(sources) == 1:
            lines.append(Line(f'{of}measured', timed, PINK, dots=True))
    if count < 2:
        return None
    reached = padded([x for line in lines for x, _ in line.points], 0.06)
    return Chart('Loss against latency', lines, 'ms', 'task loss', x_range=reached)


def overlays(sources: Sequence[Source]) -> list[Chart]:
    """Return latency, lambda and loss of several searches over each other."""
    charts = []
    for title, key, label in (
        ('Expected latency', 'expected_ms', 'ms'),
        ('Lambda, the price of latency', 'multiplier', 'no unit'),
        ('Loss of an architecture step', 'loss', 'loss'),
    ):
        lines = [
            Line(source.name, [(100 * r['progress'], r[key]) for r in source.trace.rows], color)
            for source, color in zip(sources, COMPARED * len(sources), strict=False)
        ]
        charts.append(Chart(title, lines, '% of the architecture phase', label))
    return charts
