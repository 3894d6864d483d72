import re

import pytest

from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.search.budget import Budget


def test_a_budget_is_given_in_ms_or_as_a_share_of_the_largest_network():
    assert Budget.resolve(dict(budget_ms=3), 1.0, 8.0) == Budget(3.0, 1.0, 8.0, (3.0,))
    assert Budget.resolve(dict(budget_ratio=0.5), 1.0, 8.0) == Budget(4.0, 1.0, 8.0, (4.0,))
    assert Budget.resolve(dict(budget_ms=2.0, budget_ratio=None), 1.0, 8.0).budget_ms == 2.0


def test_several_targets_are_met_one_after_the_other_the_lowest_last():
    budget = Budget.resolve(dict(targets_ms=[2, 3.5, 8]), 1.0, 8.0)
    assert budget == Budget(2.0, 1.0, 8.0, (8.0, 3.5, 2.0))
    assert Budget.resolve(dict(targets_ms=[2.0]), 1.0, 8.0).targets_ms == (2.0,)


@pytest.mark.parametrize('budget_ms', [1.0, 8.0])
def test_the_smallest_and_the_largest_network_are_feasible(budget_ms):
    assert Budget.resolve(dict(budget_ms=budget_ms), 1.0, 8.0).budget_ms == budget_ms


@pytest.mark.parametrize(
    'latency',
    [
        dict(budget_ms=0.999),
        dict(budget_ratio=1.01),
        dict(targets_ms=[0.999, 2.0]),
        dict(targets_ms=[2.0, 8.1]),
    ],
)
def test_an_infeasible_budget_names_the_smallest_and_the_largest_network(latency):
    with pytest.raises(SearchError) as error:
        Budget.resolve(latency, 1.23456, 8.07654, 'estimated')
    assert 'by the estimated table' in str(error.value)
    assert '1.235 ms' in str(error.value)
    assert '8.076 ms' in str(error.value)


@pytest.mark.parametrize(
    ('smallest_ms', 'largest_ms', 'printed'),
    [
        (4.0017, 8.0764, ('4.002', '8.076')),
        (1.2341, 8.0766, ('1.235', '8.076')),
        (0.0010004, 12346.0, ('0.001001', '1.234e+04')),
        (2.0, 2.5, ('2', '2.5')),
        (4.00171, 4.00189, ('4.0018', '4.0018')),  # as many digits as keep them in order
        (0.1 + 0.2, 0.1 + 0.2, ('0.30000000000000004', '0.30000000000000004')),
    ],
)
def test_a_limit_that_is_printed_is_accepted_when_it_is_typed_back(
    smallest_ms, largest_ms, printed
):
    with pytest.raises(SearchError) as error:
        Budget.resolve(dict(budget_ms=2 * largest_ms), smallest_ms, largest_ms)
    found = re.search(r'takes (\S+) ms and the largest (\S+) ms', str(error.value)).groups()
    assert found == printed
    for limit in found:
        assert Budget.resolve(dict(budget_ms=limit), smallest_ms, largest_ms)


@pytest.mark.parametrize(
    ('latency', 'found'),
    [
        (dict(), 'none'),
        (dict(budget_ms=2.0, budget_ratio=0.5), 'budget_ms=2.0, budget_ratio=0.5'),
        (dict(budget_ms=2.0, targets_ms=[2.0]), r'budget_ms=2.0, targets_ms=\[2.0\]'),
    ],
)
def test_none_and_more_than_one_way_to_say_it_are_refused(latency, found):
    with pytest.raises(
        ConfigError, match=f'one of budget_ms, budget_ratio, targets_ms; found {found}'
    ):
        Budget.resolve(latency, 1.0, 8.0)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('budget_ms', 0),
        ('budget_ms', -2.0),
        ('budget_ms', [2.0, 3.0]),
        ('budget_ratio', float('nan')),
        ('budget_ratio', 'half'),
        ('targets_ms', []),
        ('targets_ms', [2.0, 0]),
        ('targets_ms', [2.0, 'fast']),
        ('targets_ms', [2.0, float('inf')]),
    ],
)
def test_what_is_no_number_above_0_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf'model\.latency\.{key}: found .* above 0'):
        Budget.resolve({key: value}, 1.0, 8.0)


@pytest.mark.parametrize(
    ('targets', 'found'),
    [
        ([2.0, 3.0, 2.5], '2.5 behind 3'),
        ([2.0, 2.0], '2 behind 2'),
        ([2.0000001, 2.0000002], '2 behind 2'),  # one would overwrite the other's files
    ],
)
def test_targets_out_of_order_or_equal_are_refused(targets, found):
    with pytest.raises(ConfigError, match=f'targets_ms: found {found}, .* rise, each once'):
        Budget.resolve(dict(targets_ms=targets), 1.0, 8.0)
