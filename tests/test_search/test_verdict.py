import pytest

from prunet_mm.search.verdict import verdict


def history(price, losses):
    return [dict(multiplier=price, loss=loss) for loss in losses]


FLAT = [1.0] * 100
FALLING = [2.0 - 0.015 * step for step in range(100)]


@pytest.mark.parametrize('losses', [FLAT, FALLING])
def test_a_price_above_0_says_that_the_budget_binds(losses):
    text = verdict(history(0.5, losses))
    assert text.startswith('The budget binds: lambda ended at 0.500')
    assert '0.0050 of the loss' in text


@pytest.mark.parametrize('price', [0.0, -0.1, 0.01])
def test_no_price_and_a_loss_that_falls_no_more_say_that_it_does_not_bind(price):
    text = verdict(history(price, FLAT))
    assert text.startswith(f'Latency has no price: lambda ended at {price:.3f}')
    assert 'the budget does not bind' in text


@pytest.mark.parametrize('price', [0.0, -0.1])
def test_no_price_and_a_loss_that_falls_say_that_the_weights_have_learnt_too_little(price):
    text = verdict(history(price, FALLING))
    assert text.startswith('Latency has no price')
    assert 'the weights have learnt too little' in text
    assert 'does not bind' not in text


def test_the_price_is_that_of_the_end_and_no_single_step_decides():
    rows = history(5.0, FLAT) + history(0.0, FLAT)
    assert 'no price' in verdict(rows)
    rows[-1]['multiplier'] = 0.3
    assert 'no price' in verdict(rows)


@pytest.mark.parametrize('rows', [1, 2, 7])
def test_a_history_may_be_short(rows):
    assert 'does not bind' in verdict(history(0.0, FLAT[:rows]))
    assert 'The budget binds' in verdict(history(1.0, FLAT[:rows]))
