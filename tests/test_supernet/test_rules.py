import random

import numpy as np
import pytest
import torch

from prunet_mm.errors import ConfigError
from prunet_mm.supernet.rules import LogitsRule, WidthRule, build_rule
from prunet_mm.supernet.unused_channels import reset_state

GRID = tuple(range(32, 513, 32))
both = pytest.mark.parametrize('kind', [WidthRule, LogitsRule])


def expected(rule):
    return rule.expected().item()


def latency(rule, table):
    """E[lat] as a Prunode computes it: linear in r between the two entries of the table."""
    lo, hi, r = rule.pair()
    return table[lo] + r.item() * (table[hi] - table[lo])


def stepped_table(seed=0):
    costs = np.random.default_rng(seed).choice([0.0, 0.0, 1.0, 2.5], len(GRID)).cumsum() + 1
    return dict(zip(GRID, costs, strict=True))


# Both rules


@both
def test_the_pair_is_always_on_the_grid_and_around_the_width(kind):
    rng = random.Random(0)
    for _ in range(200):
        granularity, count = rng.choice([1, 8, 32]), rng.randint(2, 40)
        grid = [granularity * (i + 1) for i in range(count)]
        rule = kind(grid)
        rule.set_gap(rng.random())
        width = rng.uniform(grid[0], grid[-1])
        rule.jump(width)
        lo, hi, r = rule.pair()
        assert lo < hi
        assert {lo, hi} <= set(grid)
        assert 0 <= r.item() <= 1
        assert expected(rule) == pytest.approx(width, abs=1e-3 * (hi - lo))


@both
@pytest.mark.parametrize(('initial', 'width'), [(0.5, 256), (1.0, 512), (0.01, 32)])
def test_a_walk_starts_at_the_initial_width(kind, initial, width):
    assert expected(kind(GRID, initial)) == pytest.approx(width, abs=0.05)


@both
def test_narrowing_the_gap_keeps_the_width_and_moves_the_latency_onto_the_table(kind):
    """E[lat] changes by the table's deviation from the old chord, and by nothing else."""
    for seed in range(20):
        table, rng = stepped_table(seed), random.Random(seed)
        rule = kind(GRID)
        rule.set_gap(0.5)
        rule.jump(rng.uniform(64, 480))
        lo, hi, r = rule.pair()
        width, chord = expected(rule), latency(rule, table)
        for fraction in (0.25, 0.125, 0.0):
            rule.set_gap(fraction)
            assert expected(rule) == pytest.approx(width, abs=0.01)
        deviation = np.interp(width, list(table), list(table.values())) - chord
        assert latency(rule, table) - chord == pytest.approx(deviation, abs=1e-3)


@both
def test_the_gap_is_a_multiple_of_the_granularity_and_fits_the_range(kind):
    rule = kind(GRID)
    for fraction, gap in [(0.25, 128), (0.14, 64), (0.0, 32), (5.0, 480)]:
        rule.set_gap(fraction)
        assert int(rule.gap) == gap
        lo, hi, _ = rule.pair()
        assert hi - lo <= gap


@both
def test_its_state_is_in_the_state_dict(kind):
    rule, other = kind(GRID), kind(GRID)
    rule.set_gap(0.25)
    rule.jump(150.0)
    if kind is LogitsRule:
        rule.logits.data[1] += 1.0
        rule.walk()
    other.load_state_dict(rule.state_dict())
    assert other.pair() == rule.pair()
    for _ in range(6):
        rule.walk(), other.walk()
        assert other.pair() == rule.pair()


# The rule `width`


def test_width_crossing_a_grid_point_changes_neither_width_nor_latency():
    table = stepped_table()
    rule = WidthRule(GRID)
    for gap in (0.25, 0.0):
        rule.set_gap(gap)
        step = int(rule.gap)
        for point in range(GRID[0] + step, GRID[-1], step):
            below, above = (rule.jump(point + d) or rule.pair() for d in (-0.01, 0.01))
            assert (below[1], above[0]) == (point, point)
            before, after = (rule.jump(point + d) or latency(rule, table) for d in (-0.01, 0.01))
            rule.jump(point)
            assert expected(rule) == pytest.approx(point, abs=1e-4)
            assert latency(rule, table) == pytest.approx(table[point], abs=1e-4)
            assert before == pytest.approx(table[point], abs=0.01)
            assert after == pytest.approx(table[point], abs=0.01)


def test_width_is_optimised_in_units_of_the_widest():
    """One learning rate moves narrow and wide blocks by the same share of their range."""
    for grid in (GRID, [8, 16, 24, 32]):
        rule = WidthRule(grid, initial=0.5)
        adam = torch.optim.Adam(rule.parameters(), lr=0.01)
        (-rule.expected()).backward()
        adam.step()
        assert expected(rule) / grid[-1] == pytest.approx(0.51)


def test_width_that_left_the_range_comes_back_and_keeps_its_gradient():
    rule = WidthRule(GRID)
    for beyond, end in [(2.0, 512), (-1.0, 32)]:
        rule.width.data.fill_(beyond)
        assert rule.walk() == []
        assert expected(rule) == end
        rule.zero_grad()
        rule.pair()[2].backward()
        assert rule.width.grad > 0


def test_width_uses_a_shorter_last_cell_where_the_gap_does_not_divide_the_range():
    rule = WidthRule([4, 8, 12, 16, 20, 24])
    rule.set_gap(0.34)  # 8: cells 4-12, 12-20, 20-24
    pairs = [rule.jump(width) or rule.pair()[:2] for width in (5, 13, 21, 24)]
    assert pairs == [(4, 12), (12, 20), (20, 24), (20, 24)]


# The rule `logits`


def lean(rule, towards, steps):
    """Hold r far on one side for some architecture steps; return what became void at each."""
    void = []
    for _ in range(steps):
        rule.logits.data.copy_(torch.tensor([0.0, 3.0 if towards == 'hi' else -3.0]))
        void.append(rule.walk())
    return void


@pytest.mark.parametrize(('towards', 'lo'), [('hi', 256), ('lo', 192)])
def test_logits_move_both_masks_towards_the_likelier_width(towards, lo):
    rule = LogitsRule([32 * i for i in range(1, 17)], interval=6)
    rule.jump(240.0)
    assert rule.pair()[:2] == (224, 256)
    void = lean(rule, towards, 5)
    assert void == [[]] * 5
    assert rule.pair()[:2] == (224, 256)
    assert lean(rule, towards, 1) == [[rule.logits]]
    assert rule.pair()[:2] == (lo, lo + 32)


def test_logits_stay_while_neither_width_is_clearly_likelier():
    rule = LogitsRule(GRID, margin=0.1)
    rule.jump(240.0)
    for probability in (0.59, 0.41):
        rule.logits.data[1] = torch.tensor(probability).logit()
        assert all(rule.walk() == [] for _ in range(30))
    assert rule.pair()[:2] == (224, 256)


@pytest.mark.parametrize('width', [225.0, 240.0, 255.0])
def test_logits_are_not_moved_by_where_the_walk_was_put(width):
    """A width near an end of its pair is no preference; what is learned from there on is."""
    rule = LogitsRule(GRID)
    rule.set_gap(0.0)
    rule.jump(width)
    pair = rule.pair()[:2]
    assert all(rule.walk() == [] for _ in range(30))
    assert rule.pair()[:2] == pair
    lean(rule, 'lo', 6)
    assert rule.pair()[1] == pair[0]


def test_logits_do_not_move_for_a_single_outlier():
    rule = LogitsRule(GRID, interval=1, smoothing=0.9)
    rule.jump(240.0)
    rule.logits.data[1] = 5.0
    assert rule.walk() == []


def test_logits_stop_at_the_ends_of_the_range():
    rule = LogitsRule(GRID, interval=1)
    rule.set_gap(0.25)
    for towards, pair in [('hi', (384, 512)), ('lo', (32, 160))]:
        lean(rule, towards, 50)
        assert rule.pair()[:2] == pair


def test_logits_after_a_move_logits_smoothing_and_optimiser_state_start_afresh():
    rule = LogitsRule(GRID, interval=4)
    rule.jump(250.0)
    adam = torch.optim.Adam(rule.parameters(), lr=0.3, betas=(0.5, 0.95))
    lo, _, _ = rule.pair()
    for _ in range(40):
        adam.zero_grad()
        (-rule.pair()[2]).backward()
        adam.step()
        void = rule.walk()
        reset_state(adam, void)
        if rule.pair()[0] != lo:
            break
    assert rule.pair()[0] > lo
    assert rule.logits.tolist() == [0.0, 0.0]
    assert rule.pair()[2] == 0.5
    assert float(rule.smoothed) == 0.5
    assert int(rule.steps) == 0
    assert rule.logits not in adam.state
    adam.zero_grad()
    rule.pair()[2].backward()
    adam.step()  # without momentum from before, the first step goes where the gradient says
    assert rule.logits[1] < 0


def test_logits_narrowing_the_gap_voids_the_optimiser_state_once():
    rule = LogitsRule(GRID)
    assert rule.set_gap(0.25) == [rule.logits]
    assert rule.set_gap(0.25) == []
    assert rule.set_gap(0.0) == [rule.logits]


def test_logits_draw_r_only_where_noise_is_asked_for():
    rule = LogitsRule(GRID)
    rule.jump(240.0)
    assert len({rule.pair()[2].item() for _ in range(5)}) == 1
    drawn = [rule.pair(noisy=True)[2] for _ in range(200)]
    assert np.std([r.item() for r in drawn]) > 0.1
    drawn[0].backward()
    assert rule.logits.grad.isfinite().all()


def test_width_has_no_noise():
    rule = WidthRule(GRID)
    assert rule.pair(noisy=True) == rule.pair()


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (dict(type='random'), ['random', 'width', 'logits']),
        (dict(), ['None', 'width']),
        (dict(type='width', margin=0.1), ['margin', 'initial']),
        (dict(type='width', initial=0), ['initial', '0']),
        (dict(type='width', initial=1.5), ['initial', '1.5']),
        (dict(type='logits', interval=0), ['interval', '0']),
        (dict(type='logits', margin=0.5), ['margin', '0.5']),
        (dict(type='logits', smoothing=1.0), ['smoothing', '1.0']),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(config, words):
    with pytest.raises(ConfigError) as error:
        build_rule(GRID, config)
    assert all(word in str(error.value) for word in ['backbone.rule', *words])
