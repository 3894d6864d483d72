import itertools
import random

import numpy as np
import pytest

from prunet_mm.search.exact import BINS, best_choices, knapsack


def instance(seed, problems=1):
    """Values (layers, problems, choices), costs, and a budget between the least and the most."""
    rng = random.Random(seed)
    costs = [
        [rng.choice([0.0, rng.uniform(0.05, 1)]) for _ in range(rng.randint(1, 4))]
        for _ in range(rng.randint(1, 5))
    ]
    scale = 10.0 ** rng.choice([-6, -3, 0])  # of losses
    values = [
        np.array([[scale * rng.gauss(0, 1) for _ in row] for _ in range(problems)]) for row in costs
    ]
    budget = rng.uniform(sum(map(min, costs)), sum(map(max, costs))) + 1e-3
    return values, costs, budget


def total(table, picks):
    return sum(row[pick] for row, pick in zip(table, picks, strict=True))


def every_choice(costs):
    return itertools.product(*(range(len(row)) for row in costs))


@pytest.mark.parametrize('seed', range(60))
def test_best_choices_are_those_of_brute_force_at_costs_rounded_up(seed):
    values, costs, budget = instance(seed, problems=3)
    cells = [np.ceil(np.array(row) / budget * BINS - 1e-9) for row in costs]
    fitting = [picks for picks in every_choice(costs) if total(cells, picks) <= BINS]
    found = best_choices(values, costs, budget)
    assert found.shape == (3, len(costs))
    for problem, picks in enumerate(found):
        table = [row[problem] for row in values]
        if fitting:
            assert total(costs, picks) <= budget * (1 + 1e-9)
            assert total(table, picks) == pytest.approx(
                min(total(table, one) for one in fitting), abs=1e-12
            )
        else:
            assert total(costs, picks) == sum(map(min, costs))


def test_where_nothing_fits_the_cheapest_choices_are_the_best():
    values = [np.array([[0.0, -9.0], [-9.0, 0.0]])] * 2
    for budget in (1.9, 0.0, -1.0):
        found = best_choices(values, [[1.0, 2.0], [3.0, 1.0]], budget)
        assert found.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize('seed', range(60))
def test_a_knapsack_yields_the_best_choices_in_order(seed):
    values, costs, budget = instance(seed)
    table = [row[0] for row in values]
    least = random.Random(seed).choice([0.0, 0.8, 0.95]) * budget
    fitting = [picks for picks in every_choice(costs) if least <= total(costs, picks) <= budget]
    expected = sorted(total(table, picks) for picks in fitting)[:5]
    found = list(itertools.islice(knapsack(table, costs, budget, least), 5))
    assert set(found) <= set(fitting)
    assert len(set(found)) == len(found)
    scale = max(np.abs(row).max() for row in table)
    assert [total(table, picks) / scale for picks in found] == pytest.approx(
        [value / scale for value in expected], abs=1e-6
    )


def test_a_knapsack_ends_after_the_last_choice_that_fits():
    costs = [[1.0, 2.0], [1.0, 2.0]]
    assert list(knapsack([[0, 1], [0, 2]], costs, 3.0)) == [(0, 0), (1, 0), (0, 1)]
    assert list(knapsack([[0, 1], [0, 2]], costs, 3.0, least=2.5)) == [(1, 0), (0, 1)]
    assert list(knapsack([[0, 1], [0, 2]], costs, 1.9)) == []
    assert list(knapsack([[0, 1], [0, 2]], costs, 9.0, least=4.5)) == []


def test_a_budget_of_all_that_there_is_fits_whatever_the_order_of_the_sum():
    for seed in range(20):
        rng = random.Random(seed)
        costs = [[cost / 2, cost] for cost in (rng.random() for _ in range(9))]
        budget = sum(cost for _, cost in reversed(costs))
        picks = next(knapsack([[1.0, 0.0]] * 9, costs, budget, least=0.99 * budget))
        assert picks == (1,) * 9


def test_not_even_the_solvers_tolerance_goes_above_the_budget():
    assert list(knapsack([[0, -1]], [[0.5, 1 + 5e-7]], 1.0)) == [(0,)]
    assert list(knapsack([[0, -1]], [[1, 0.9 - 5e-7]], 1.0, least=0.9)) == [(0,)]
