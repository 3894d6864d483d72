import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.search.ramp import BudgetRamp


def walk(ramp, steps, expected_ms=8.0, steady=True, first=1):
    """Step so often; returns the budget after each step, and whether a target was passed."""
    rows = []
    for done in range(first, first + steps):
        passed = ramp.step(done, expected_ms, steady)
        rows.append((ramp.budget_ms, passed))
    return rows


def budgets(rows):
    return [budget_ms for budget_ms, _ in rows]


def test_the_budget_falls_in_equal_ratios_from_what_is_expected_to_the_target():
    ramp = BudgetRamp([1.0], steps=40, begin=0.1, fall=0.5)
    found = budgets(walk(ramp, 40))
    assert found[:3] == [None] * 3  # choices are only listened to
    falling = [8.0 * 0.125 ** (i / 20) for i in range(1, 21)]
    assert found[3:23] == pytest.approx(falling)
    assert found[22:] == [1.0] * 18
    assert ramp.at_last


def test_it_rests_at_every_target_until_lambda_is_steady():
    ramp = BudgetRamp([4.0, 2.0, 1.0], steps=100, begin=0.0, fall=0.3, rest=0.4)
    assert (ramp.longest_rest, ramp.shortest_rest) == (20, 5)
    rows = walk(ramp, 100)
    assert [budget_ms for budget_ms, passed in rows if passed] == [4.0, 2.0]
    # at each: the step that brings it there, and the shortest rest
    assert [budgets(rows).count(target) for target in (4.0, 2.0)] == [6, 6]
    assert set(budgets(rows)[60:]) == {1.0}


def test_it_rests_no_longer_than_it_may_even_if_lambda_never_is_steady():
    ramp = BudgetRamp([4.0, 2.0, 1.0], steps=100, begin=0.0, fall=0.3, rest=0.4)
    rows = walk(ramp, 100, steady=False)
    assert [budgets(rows).count(target) for target in (4.0, 2.0)] == [21, 21]
    assert sum(passed for _, passed in rows) == 2
    assert ramp.at_last


@pytest.mark.parametrize('steady', [True, False])
@pytest.mark.parametrize('targets', [[1.0], [6.0, 1.0], [7.9, 7.8, 3.0, 2.9]])
def test_it_never_rises_nor_jumps_and_arrives_in_time(targets, steady):
    ramp = BudgetRamp(targets, steps=60)
    found = budgets(walk(ramp, 60, steady=steady))
    found = [8.0] + [budget_ms for budget_ms in found if budget_ms is not None]
    ratio = (targets[-1] / 8.0) ** (1 / 30)
    for before, after in zip(found, found[1:], strict=False):
        assert ratio * before * (1 - 1e-12) <= after <= before
    assert set(targets) <= set(found)
    assert found[-1] == targets[-1]


def test_where_less_is_expected_than_the_first_target_it_begins_there():
    ramp = BudgetRamp([4.0, 2.0], steps=20, begin=0.0)
    rows = walk(ramp, 20, expected_ms=3.0)
    assert rows[0] == (4.0, True)  # the shortest rest is one step
    assert max(budgets(rows)) == 4.0
    assert sum(passed for _, passed in rows) == 1


def test_it_can_go_to_each_target_at_once_for_comparison():
    ramp = BudgetRamp([4.0, 2.0], steps=40, begin=0.1, rest=0.1, jump=True)
    rows = walk(ramp, 40)
    assert set(budgets(rows)) == {None, 4.0, 2.0}
    assert budgets(rows)[3:6] == [4.0, 4.0, 2.0]


def test_its_state_survives_a_restart():
    for cut in range(1, 30):
        ramp, whole = (BudgetRamp([4.0, 2.0, 1.0], steps=30) for _ in range(2))
        rows = walk(ramp, cut)
        resumed = BudgetRamp([4.0, 2.0, 1.0], steps=30)
        resumed.load_state_dict(ramp.state_dict())
        rows += walk(resumed, 30 - cut, expected_ms=1.5, first=cut + 1)
        assert rows == walk(whole, cut) + walk(whole, 30 - cut, 1.5, first=cut + 1)


def test_the_target_ahead_is_known():
    ramp = BudgetRamp([4.0, 2.0], steps=40)
    assert (ramp.budget_ms, ramp.target_ms, ramp.at_last) == (None, 4.0, False)
    walk(ramp, 40)
    assert (ramp.target_ms, ramp.at_last) == (2.0, True)


@pytest.mark.parametrize(
    'shares', [dict(begin=-0.1), dict(fall=0), dict(rest=-0.1), dict(fall=0.8), dict(begin=0.5)]
)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ConfigError, match=r'train_cfg\.ramp: found begin=.* 1 in sum'):
        BudgetRamp([1.0], steps=40, **shares)
