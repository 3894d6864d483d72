import pytest
import torch

from prunet_mm.search.choosing import (
    SLACK,
    chances_at,
    exact_paths,
    marginals,
    most_frequent,
    price_for,
    values_of,
)

LAYER = 'stage2.layer1'


@pytest.fixture
def model(make_resting, teach):
    model = make_resting()
    # the larger kernel helps, and so does each layer that may be skipped
    helps = {(LAYER, 'irb_k3'): 0.1, ('stage1.layer2', 'skip'): 0.2, ('stage2.layer2', 'skip'): 0.1}
    teach(model, helps)
    return model


def test_values_are_of_the_choices_that_are_left_in_their_order(model):
    values = values_of(model.supernet, model.scores)
    mean = values_of(model.supernet, model.scores, mean=True)
    for name, options in model.supernet.options().items():
        assert values[name].shape == (len(model.scores.noise), len(options))
        assert mean[name].shape == (1, len(options))
    k3, k5 = mean[LAYER][0].tolist()
    assert k3 - k5 == pytest.approx(0.1, abs=0.03)
    model.supernet.decide(LAYER, 'irb_k5')
    assert values_of(model.supernet, model.scores, mean=True)[LAYER].tolist() == [[k5]]


def test_of_blends_a_value_is_minus_the_logarithm_of_the_probability(make_resting):
    model = make_resting({'model.architecture.backbone.sampling': 'softmax'})
    model.supernet.layers()[LAYER].logits['irb_k5'].data.fill_(2.0)
    (row,) = values_of(model.supernet, model.scores)[LAYER]
    torch.testing.assert_close(row, -torch.tensor([0.0, 2.0]).log_softmax(0))


def test_a_price_makes_the_cheaper_choice_more_probable_and_none_impossible(model):
    values = values_of(model.supernet, model.scores)
    free, dear = (chances_at(model.supernet, values, price) for price in (0.0, 1e6))
    assert free[LAYER].argmax() == 1 and dear[LAYER].argmax() == 0
    for name, options in model.supernet.options().items():
        for chances in (free[name], dear[name]):
            assert chances.sum() == pytest.approx(1)
            assert len(chances) == len(options)
            assert (chances > 0).all()
        if 'skip' in options:
            assert options[int(dear[name].argmax())] == 'skip'


@pytest.mark.parametrize('share', [0.7, 0.8, 0.9])
def test_a_price_that_is_solved_meets_the_budget(model, share):
    """As well as draws can: one draw's choice is the smallest step of E[lat]."""
    supernet = model.supernet
    values = values_of(supernet, model.scores)

    def expected_ms(price):
        supernet.believe(chances_at(supernet, values, price))
        return float(supernet.expected_latency_ms())

    budget_ms = share * expected_ms(-1e9)
    price = price_for(supernet, values, budget_ms)
    assert expected_ms(price) <= budget_ms * 1.02
    assert expected_ms(price - 0.02 * abs(price)) >= budget_ms * 0.98


@pytest.mark.parametrize('share', [0.6, 0.8, 1.0])
def test_a_path_for_every_draw_is_within_the_budget(model, share):
    supernet, budget_ms = model.supernet, share * model.budget.largest_ms
    values = values_of(supernet, model.scores)
    paths = exact_paths(supernet, values, budget_ms, price_per_ms=0.1)
    assert len(paths) == len(model.scores.noise)
    assert all(supernet.path_ms(path) <= budget_ms * (1 + SLACK) for path in paths)
    supernet.walking = False  # no width makes up for anything
    paths = exact_paths(supernet, values, budget_ms)
    assert all(supernet.path_ms(path) <= budget_ms * (1 + 1e-9) for path in paths)


def test_what_is_settled_stays_whatever_it_costs_the_others(model):
    values = values_of(model.supernet, model.scores, mean=True)
    for choice in ('irb_k3', 'irb_k5'):
        (path,) = exact_paths(model.supernet, values, model.budget.budget_ms, fixed={LAYER: choice})
        assert path[LAYER] == choice


def test_paths_are_counted_by_choice_and_as_a_whole():
    paths = [dict(a='x', b='y')] * 2 + [dict(a='x', b='z')] * 3 + [dict(a='w', b='y')]
    assert marginals(paths) == dict(a=dict(x=5 / 6, w=1 / 6), b=dict(y=0.5, z=0.5))
    assert list(marginals(paths)['a']) == ['x', 'w']
    assert most_frequent(paths, 2) == [dict(a='x', b='z'), dict(a='x', b='y')]
    assert len(most_frequent(paths, 9)) == 3
