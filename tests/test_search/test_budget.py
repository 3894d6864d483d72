import random

import pytest

from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.search.budget import Budget, Row, repair

# Is a budget feasible?


def test_a_budget_is_given_in_ms_or_as_a_share_of_the_largest_network():
    assert Budget.resolve(dict(budget_ms=3), 1.0, 8.0) == Budget(3.0, 1.0, 8.0)
    assert Budget.resolve(dict(budget_ratio=0.5), 1.0, 8.0) == Budget(4.0, 1.0, 8.0)
    assert Budget.resolve(dict(budget_ms=2.0, budget_ratio=None), 1.0, 8.0).budget_ms == 2.0


@pytest.mark.parametrize('budget_ms', [1.0, 8.0])
def test_the_smallest_and_the_largest_network_are_feasible(budget_ms):
    assert Budget.resolve(dict(budget_ms=budget_ms), 1.0, 8.0).budget_ms == budget_ms


@pytest.mark.parametrize('latency', [dict(budget_ms=0.999), dict(budget_ratio=1.01)])
def test_an_infeasible_budget_names_the_smallest_and_the_largest_network(latency):
    with pytest.raises(SearchError) as error:
        Budget.resolve(latency, 1.23456, 8.76543, 'estimated')
    assert 'by the estimated table' in str(error.value)
    assert '1.235 ms' in str(error.value)
    assert '8.765 ms' in str(error.value)


@pytest.mark.parametrize(
    'latency',
    [
        dict(),
        dict(budget_ms=2.0, budget_ratio=0.5),
        dict(budget_ms=0),
        dict(budget_ms=-2.0),
        dict(budget_ratio=float('nan')),
    ],
)
def test_an_unclear_budget_is_refused(latency):
    with pytest.raises(ConfigError, match='budget_ms and budget_ratio'):
        Budget.resolve(latency, 1.0, 8.0)


# Repair


def row(name, learned, costs_ms, index, step=8):
    widths = [step * (i + 1) for i in range(len(costs_ms))]
    return Row(name, widths, costs_ms, learned, index)


def linear(name, learned, index, count=10, slope=1.0):
    return row(name, learned, [slope * (i + 1) for i in range(count)], index)


def test_over_the_budget_the_layer_furthest_above_what_it_learned_gives_a_granule_up():
    rows = [linear('a', learned=38.0, index=4), linear('b', learned=33.0, index=4)]
    outcome = repair(rows, fixed_ms=0.0, budget_ms=9.0)
    assert outcome.moves == (('b', 40, 32),)
    assert outcome.predicted_ms == 9.0
    assert outcome.blocked is None


def test_under_the_budget_the_layer_furthest_below_what_it_learned_takes_one():
    rows = [linear('a', learned=43.0, index=4), linear('b', learned=46.0, index=4)]
    outcome = repair(rows, fixed_ms=2.0, budget_ms=13.0)
    assert outcome.moves == (('b', 40, 48),)
    assert outcome.predicted_ms == 13.0


def test_how_far_is_measured_in_units_of_the_widest_width():
    """Ten channels too many are little to a wide layer, four are much to a narrow one."""
    rows = [linear('wide', learned=30.0, index=4, count=100), linear('slim', 36.0, 4, count=5)]
    assert repair(rows, 0.0, 9.0).moves == (('slim', 40, 32),)
    rows = [linear('wide', learned=30.0, index=4, count=100), linear('slim', 39.8, 4, count=5)]
    assert repair(rows, 0.0, 9.0).moves == (('wide', 40, 32),)


def test_on_the_budget_nothing_moves():
    rows = [linear('a', learned=30.0, index=4), linear('b', learned=50.0, index=4)]
    assert repair(rows, 0.0, 10.0).moves == ()


def test_widths_that_cost_nothing_more_are_taken():
    """Going down ends at the widest of the cheaper widths, going up at the widest of the next."""
    steps = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]
    free = [row('a', 0.0, steps, index=0)]
    assert repair(free, 0.0, 1.0).moves == (('a', 8, 24),)
    down = [row('a', 0.0, steps, index=4)]
    assert repair(down, 0.0, 1.0).moves == (('a', 40, 48), ('a', 48, 24))
    up = [row('a', 60.0, steps, index=2)]
    assert repair(up, 0.0, 2.0).moves == (('a', 24, 48),)


def test_a_granule_that_does_not_fit_is_named():
    rows = [row('a', 9.0, [1.0, 1.9], 0), row('b', 9.0, [1.0, 1.6], 0)]
    outcome = repair(rows, fixed_ms=0.0, budget_ms=2.5)
    assert outcome.moves == ()
    assert outcome.blocked == ('b', 16, pytest.approx(0.6))


def test_a_smaller_granule_is_taken_where_the_wanted_one_does_not_fit():
    rows = [row('a', 50.0, [1.0, 1.9], 0), row('b', 9.0, [1.0, 1.5], 0)]
    outcome = repair(rows, fixed_ms=0.0, budget_ms=2.5)
    assert outcome.moves == (('b', 8, 16),)
    assert outcome.blocked is None


def test_with_every_layer_at_its_widest_nothing_is_blocked():
    outcome = repair([linear('a', learned=8.0, index=0)], fixed_ms=0.0, budget_ms=100.0)
    assert outcome.predicted_ms == 10.0
    assert outcome.blocked is None


def test_a_plain_convolution_has_no_choice():
    conv = Row('conv', (0,), [1.5], 0.0, 0)
    outcome = repair([conv, linear('a', learned=30.0, index=5)], fixed_ms=0.0, budget_ms=5.5)
    assert outcome.predicted_ms == 5.5
    assert {name for name, _, _ in outcome.moves} == {'a'}


def test_narrowest_widths_above_the_budget_are_an_error_that_names_both():
    with pytest.raises(SearchError) as error:
        repair([linear('a', learned=30.0, index=5)], fixed_ms=2.5, budget_ms=3.25)
    assert '3.5 ms' in str(error.value)
    assert '3.25 ms' in str(error.value)


def test_a_budget_of_the_largest_network_keeps_it_whatever_the_order_of_the_sum():
    above = 0
    for seed in range(50):
        costs_ms = [random.Random(f'{seed} {i}').random() for i in range(9)]
        rows = [row(str(i), 16.0, [cost / 2, cost], 1) for i, cost in enumerate(costs_ms)]
        budget_ms = sum(reversed(costs_ms)) + 0.3
        above += 0.3 + sum(costs_ms) > budget_ms
        assert repair(rows, 0.3, budget_ms).moves == ()
    assert above > 5


def random_instance(rng, finest=False):
    """Layers with steps and plateaus; a budget between the smallest and the largest of them."""
    rows = []
    for i in range(rng.randint(1, 12)):
        count = rng.randint(40, 60) if finest else rng.randint(1, 20)
        cost, costs = rng.uniform(0.05, 0.2), []
        for _ in range(count):
            cost += rng.uniform(0, 0.02) if finest else rng.choice([0.0, 0.0, rng.uniform(0, 0.5)])
            costs.append(cost)
        learned = rng.uniform(8, 8 * count)
        rows.append(row(f'layer{i}', learned, costs, rng.randrange(count)))
    fixed_ms = rng.uniform(0, 1)
    smallest = fixed_ms + sum(r.costs_ms[0] for r in rows)
    largest = fixed_ms + sum(r.costs_ms[-1] for r in rows)
    return rows, fixed_ms, rng.uniform(smallest, largest)


def test_repair_never_exceeds_the_budget_and_says_what_blocks_it():
    blocked = reached = 0
    for seed in range(500):
        rows, fixed_ms, budget_ms = random_instance(random.Random(seed))
        start = {r.name: r.widths[r.index] for r in rows}
        outcome = repair(rows, fixed_ms, budget_ms)

        assert outcome.predicted_ms == pytest.approx(fixed_ms + sum(r.cost_ms for r in rows))
        assert outcome.predicted_ms <= budget_ms * (1 + 1e-9)
        for name, before, after in outcome.moves:  # the moves lead from the start to the end
            assert start[name] == before
            start[name] = after
        assert start == {r.name: r.widths[r.index] for r in rows}

        left = [r for r in rows if r.index + 1 < len(r.widths)]
        granules = {
            (r.name, r.widths[r.index + 1]): r.costs_ms[r.index + 1] - r.cost_ms for r in left
        }
        assert all(cost > 0 for cost in granules.values())  # nothing that is free is left
        if outcome.predicted_ms >= 0.99 * budget_ms:
            reached += 1
            assert outcome.blocked is None
        elif granules:
            blocked += 1
            name, width, cost = outcome.blocked
            assert cost == granules[name, width] == min(granules.values())
            assert outcome.predicted_ms + cost > budget_ms
        else:
            assert outcome.blocked is None
    assert min(blocked, reached) > 50


def test_repair_uses_99_percent_where_every_granule_is_below_1_percent():
    for seed in range(100):
        rows, fixed_ms, budget_ms = random_instance(random.Random(seed), finest=True)
        granule = max(b - a for r in rows for a, b in zip(r.costs_ms, r.costs_ms[1:], strict=False))
        outcome = repair(rows, fixed_ms, budget_ms, share=1 - granule / budget_ms)
        assert outcome.blocked is None
        assert budget_ms - granule <= outcome.predicted_ms <= budget_ms * (1 + 1e-9)


def test_repair_fails_only_where_the_narrowest_widths_exceed_the_budget():
    for seed in range(100):
        rng = random.Random(seed)
        rows, fixed_ms, _ = random_instance(rng)
        narrowest = fixed_ms + sum(r.costs_ms[0] for r in rows)
        repair(rows, fixed_ms, narrowest)
        with pytest.raises(SearchError):
            repair(rows, fixed_ms, narrowest * 0.999)
