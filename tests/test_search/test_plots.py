import itertools
import math
import random

import matplotlib
import pytest

from prunet_mm.search import figures
from prunet_mm.search.network_plot import columns_of, plot_network
from prunet_mm.search.plots import POINTS, plot_candidates, plot_latency, plot_widths
from prunet_mm.search.trace import Trace
from prunet_mm.spec import SearchSpace

HISTORY_PLOTS = [
    plot_widths,
    plot_candidates,
    lambda history, path: plot_latency(history, path, 'measured', 0.99, (1.02, 0.03)),
]


def space_of(depths, ops=('irb', 'fused_irb'), kernels=(3, 5)):
    stages = [
        dict(width=32, stride=1, depth=depth, ops=list(ops), kernels=list(kernels))
        for depth in depths
    ]
    return SearchSpace.from_dict(
        dict(
            name='some',
            resolution=32,
            stem=dict(out_channels=32),
            stages=stages,
            tail=dict(num_classes=10),
        )
    )


def search(space, steps, layers_removed=()):
    """A history such as a search writes: candidates go one by one, then layers, then it settles.

    Of every layer the first candidate wins; the second one lives until then.
    """
    rng, alive = random.Random(0), {p.name: list(p.candidates) for p in space.positions()}
    rows = []
    for step in range(1, steps + 1):
        progress, events, widths, keep = step / steps, [], {}, {}
        for layer, candidates in list(alive.items()):
            first = {c.name: 1 / len(candidates) for c in candidates}
            if len(candidates) > 2 and progress > 1 - 0.2 * len(candidates):
                gone = candidates.pop()
                events.append(event('candidate', layer, gone.name, first[gone.name]))
            if layer in layers_removed and progress > 0.7:
                events.append(event('layer', layer, None, 0.49))
                del alive[layer]
            elif progress > 0.8 and len(candidates) > 1:
                events.append(event('settled', layer, candidates.pop().name, 0.48))
        for layer, candidates in alive.items():
            if 0.5 < progress <= 0.8 and not layer.endswith('layer1'):
                keep[layer] = 1 - progress / 2
            for c in (c for c in candidates if c.widths):
                at = 0.5 + 0.4 * math.sin(5 * progress) + 0.02 * rng.random()
                widths[f'{layer}.{c.name}'] = dict(
                    expected=at * c.widths[-1], lo=0, hi=c.widths[-1], widest=c.widths[-1]
                )
        rows.append(
            dict(
                step=50 + step,
                loss=1.0,
                progress=progress,
                expected_ms=1 + math.exp(-3 * progress),
                budget_ms=1.0,
                target_ms=1.0,
                multiplier=progress,
                multiplier_average=progress / 2,
                temperature=1.0,
                widths=widths,
                probabilities={
                    layer: {c.name: 1 / len(candidates) for c in candidates}
                    for layer, candidates in alive.items()
                },
                keep=keep,
                events=[*events, dict(kind='move', candidate='x.y', old=[0, 8], new=[8, 16])],
            )
        )
    return rows


def event(kind, layer, candidate, probability):
    found = dict(kind=kind, layer=layer, probability=probability, threshold=0.5)
    return found | (dict(candidate=candidate) if candidate else {})


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, instead of files."""
    kept = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, path: kept.append(figure))
    return kept


def panel(figure, layer):
    return next(a for a in figure.axes if a.get_title(loc='left').startswith(f'{layer}:'))


def lines(axes):
    """Lines with a dash pattern of their own: no marks of removals."""
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def labels(figure):
    """All texts but the numbers on the axes of history plots."""
    for axes in figure.axes:
        yield from (axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        if axes.get_legend():
            yield from axes.get_legend().texts
    for legend in figure.legends:
        yield from legend.texts
    yield from figure.texts


def assert_readable(figure):
    """No label lies on another one or reaches out of the picture."""
    figure.draw_without_rendering()
    found = [label for label in labels(figure) if label.get_text()]
    boxes = [label.get_window_extent().padded(-1) for label in found]
    pairs = itertools.combinations(zip(found, boxes, strict=True), 2)
    assert [(one, other) for (one, a), (other, b) in pairs if a.overlaps(b)] == []
    corners = [(box.min.min(), *(figure.bbox.max - box.max)) for box in boxes]
    assert [label for label, at in zip(found, corners, strict=True) if min(at) < 0] == []


def assert_png(path):
    assert path.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('plot', HISTORY_PLOTS)
@pytest.mark.parametrize('steps', [1, 2, 10_000])
def test_a_history_of_any_length_becomes_a_png(tmp_path, plot, steps):
    history = search(space_of([2]), steps, ['stage1.layer2'])
    assert_png(plot(history, tmp_path / 'picture.png'))
    assert [path.name for path in tmp_path.iterdir()] == ['picture.png']


@pytest.mark.parametrize('plot', HISTORY_PLOTS)
def test_long_histories_are_thinned_to_what_can_be_seen(drawn, plot):
    plot(search(space_of([1]), 5_000), 'unused.png')
    longest = max(len(line.get_xdata()) for axes in drawn[0].axes for line in axes.lines)
    assert POINTS / 2 < longest < POINTS + 20


def test_thinning_loses_neither_the_last_row_nor_those_at_removals():
    history = search(space_of([2]), 1_003, ['stage1.layer2'])
    trace = Trace.of(history, points=10)
    steps = {row['step'] for row in trace.rows}
    at = {event['step'] for event in trace.removed}
    assert len(at) == 4 and at | {step - 1 for step in at} | {history[-1]['step']} <= steps
    assert len(steps) < 30
    assert trace.removed == Trace.of(history).removed


@pytest.mark.parametrize('plot', [plot_widths, plot_candidates])
def test_a_removed_layer_is_drawn_up_to_its_removal(drawn, plot):
    history = search(space_of([3]), 100, ['stage1.layer2'])
    plot(history, 'unused.png')
    axes = panel(drawn[0], 'stage1.layer2')
    assert 'removed at step 121' in axes.get_title(loc='left')
    assert max(max(line.get_xdata()) for line in lines(axes)) == 121
    stays = panel(drawn[0], 'stage1.layer3')
    assert max(max(line.get_xdata()) for line in lines(stays)) == 150


@pytest.mark.parametrize('plot', [plot_widths, plot_candidates])
def test_a_removed_candidate_ends_in_a_mark(drawn, plot):
    history = search(space_of([1], ops=['irb']), 100)
    plot(history, 'unused.png')
    axes = panel(drawn[0], 'stage1.layer1')
    ends = sorted(max(line.get_xdata()) for line in lines(axes) if line.get_linestyle() != 'None')
    assert ends == [131, 150]
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == 'D']
    assert marks == [131]
    assert 'removed in settling' in [text.get_text() for text in drawn[0].legends[0].texts]


def test_widths_are_a_share_of_the_widest_and_named_in_channels(drawn):
    history = search(space_of([1], ops=['irb'], kernels=[3]), 50)
    plot_widths(history, 'unused.png')
    axes, last = panel(drawn[0], 'stage1.layer1'), history[-1]['widths']['stage1.layer1.irb_k3']
    assert lines(axes)[0].get_ydata()[-1] == pytest.approx(100 * last['expected'] / 256)
    assert f'{last["expected"]:.0f} of 256' in axes.get_title(loc='left')


def test_keep_coefficients_are_drawn_where_a_skip_competed(drawn):
    plot_candidates(search(space_of([2]), 100), 'unused.png')

    def keeps(layer):
        drawn_lines = panel(drawn[0], layer).lines
        return [line for line in drawn_lines if line.get_color() == figures.PINK]

    assert len(keeps('stage1.layer2')[0].get_xdata()) == 30
    assert not any(len(line.get_xdata()) for line in keeps('stage1.layer1'))


def test_a_layer_without_a_choice_has_no_panel(drawn):
    plot_candidates(search(space_of([2], ops=['irb'], kernels=[3]), 20), 'unused.png')
    titles = [axes.get_title(loc='left') for axes in drawn[0].axes]
    assert [title.partition(':')[0] for title in titles] == ['stage1.layer2']


@pytest.mark.parametrize('kind', ['measured', 'estimated'])
def test_latencies_say_whether_they_are_measured(drawn, kind):
    space = space_of([1])
    plot_latency(search(space, 9), 'unused.png', kind)
    spec = space.smallest()
    plot_network(spec, space, 'unused.png', (), [1.0] * len(spec.block_keys()), kind)
    labels = [axes.get_ylabel() for figure in drawn for axes in figure.axes]
    assert [f'({kind} table)' in label for label in labels] == [True, False, False, True]


def test_latency_names_budget_prediction_and_measurement(drawn):
    plot_latency(search(space_of([1]), 50), 'unused.png', 'measured', 0.987, (1.234, 0.05))
    legend = ' '.join(text.get_text() for text in drawn[0].axes[0].get_legend().texts)
    for words in ('budget: 1 ms', '0.987 ms', '1.234 ms', 'IQR, 0.05 ms', 'candidate removed (2)'):
        assert words in legend


@pytest.mark.parametrize('plot', HISTORY_PLOTS)
@pytest.mark.parametrize(
    ('depths', 'ops'),
    [([1], ['irb']), ([2, 2], ['conv', 'irb', 'fused_irb']), ([8] * 5, ['fused_irb'])],
)
def test_history_plots_are_readable_at_any_size(drawn, plot, depths, ops):
    plot(search(space_of(depths, ops, (3, 5, 7)), 12, ['stage1.layer2']), 'unused.png')
    assert_readable(drawn[0])


@pytest.mark.parametrize('depths', [[1], [4, 4], [8] * 5])
def test_the_network_is_readable_at_any_size(drawn, depths):
    space = space_of(depths)
    spec = space.largest()
    plot_network(spec, space, 'unused.png', (), range(1, len(spec.block_keys()) + 1))
    assert_readable(drawn[0])


def test_skipped_positions_stay_empty_where_they_were():
    space = space_of([3, 2])
    spec = space.network([choice(p, 64) for p in space.positions() if p.name != 'stage1.layer2'])
    columns = columns_of(spec, space, ['stage1.layer2'])
    names = ['stem', *(f'stage1.layer{i}' for i in (1, 2, 3)), 'stage2.layer1', 'stage2.layer2']
    assert [column.name for column in columns] == [*names, 'tail']
    assert [column.name for column in columns if column.row is None] == ['stage1.layer2']
    guessed = columns_of(spec, space)
    assert [column.name for column in guessed if column.row is None] == ['stage1.layer3']


def test_bars_are_shares_of_the_widest_allowed(drawn):
    space = space_of([2])
    spec = space.network([choice(p, 64 * p.index) for p in space.positions()])
    plot_network(spec, space, 'unused.png')
    colored = [bar for bar in drawn[0].axes[0].patches if bar.get_facecolor()[3]]
    heights = {round(bar.get_x() + 0.36): bar.get_height() for bar in colored}
    assert (heights[1], heights[2]) == (25, 50)


def choice(position, width):
    return position, position.candidates[0], width


def test_milestones_are_found_without_an_event_for_them():
    history = search(space_of([2], ops=['irb'], kernels=[3]), 2_000)
    trace = Trace.of(history, points=10)
    assert not trace.removed
    assert trace.milestones() == {'skips open': 1_051, 'choices settled': 1_651}


def test_removing_the_last_skippable_layer_settles_nothing():
    rows = search(space_of([2], ops=['irb'], kernels=[3]), 100, ['stage1.layer2'])
    assert Trace.of(rows).milestones() == {'skips open': 101}


def test_candidates_can_be_told_apart():
    names = [f'{op}_k{kernel}' for op in ('conv', 'irb', 'fused_irb') for kernel in (3, 5, 7)]
    looks = [figures.line_look(name) for name in names]
    assert len({look['color'] for look in looks}) == 9
    assert len({str(look['linestyle']) for look in looks}) == 3


def test_settings_of_matplotlib_are_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_widths(search(space_of([1]), 3), tmp_path / 'widths.png')
    assert dict(matplotlib.rcParams) == before
