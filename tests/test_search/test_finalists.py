"""The networks that a search might end in, judged side by side by a loss that is made up."""

from functools import partial

import pytest
import torch

from prunet_mm.errors import SearchError
from prunet_mm.search import finalists as module
from prunet_mm.search.finalists import describe, judge_finalists
from prunet_mm.search.rounding import round_widths

CHOICE = ('stage2.layer1', 'irb_k5')
# At half of its widest widths it takes the whole budget.
PATH = dict([('stage1.layer1', 'irb_k3'), ('stage1.layer2', 'irb_k3'), CHOICE,
             ('stage2.layer2', 'irb_k3')])  # fmt: skip


@pytest.fixture
def model(make_resting, teach, monkeypatch):
    """Scores in doubt between two kernels; the wider one is far better when it is measured."""
    model = make_resting()
    for block in model.supernet.prunodes():
        block.rule.jump(block.widths[-1] / 2)
    teach(model, {('stage1.layer2', 'skip'): 1.0, ('stage2.layer2', 'skip'): 1.0}, doubt=1.0)

    def task_losses(batches, path=None):
        width = model.supernet.layers()[CHOICE[0]].candidates[path[CHOICE[0]]].expected_width()
        loss = (CHOICE not in path.items()) + 1e-3 * abs(width - 30)
        return torch.tensor([loss + image for image in batches], dtype=torch.float64)

    monkeypatch.setattr(model, 'task_losses', task_losses)
    monkeypatch.setattr(module, 'measure_norms', lambda *_: None)
    return model


def total(said, model, path):
    return sum(said.get(pair, 0.0) for pair in path.items())


def judge(model, budget_ms=None):
    return judge_finalists(model, budget_ms or model.supernet.path_ms(PATH), [0.0, 1.0, 5.0], [])


def test_the_best_by_measured_loss_and_scores_comes_first_and_all_keep_the_budget(model):
    found, budget_ms = judge(model), model.supernet.path_ms(PATH)
    assert len({tuple(one.path.items()) for one in found}) > 1
    assert len({str(one[:2]) for one in found}) == len(found)  # none twice
    verdicts = [one.loss + one.scored for one in found]
    assert verdicts == sorted(verdicts)
    assert CHOICE in found[0].path.items()
    for one in found:
        assert 0.99 * budget_ms <= one.rounding.predicted_ms <= budget_ms * (1 + 1e-12)
        rise, error = one.behind
        assert rise == pytest.approx(one.loss - found[0].loss)
        assert error == pytest.approx(0, abs=1e-9)  # what images have in common is no doubt


def test_a_measured_loss_counts_as_much_as_what_the_scores_say_against_it(model, monkeypatch):
    for against in (0.6, 1.4):  # measured, the choice is better by 1
        said = {CHOICE: against}
        monkeypatch.setattr(module, '_scored', partial(total, said))
        found = judge(model)
        assert (CHOICE in found[0].path.items()) == (against < 1)
    others = [one for one in found if CHOICE in one.path.items()]
    assert others and all(one.behind[0] < 0 < one.scored for one in others)


def test_what_is_scored_is_the_sum_over_a_path(model, teach):
    teach(model, {CHOICE: 0.25}, doubt=2.0, count=500)
    found = judge(model)
    price, sums = model.price_per_ms, {}
    for one in found:
        own = 0.25 * (CHOICE in one.path.items()) + price * model.supernet.path_ms(one.path)
        if 'skip' not in one.path.values():
            sums[str(one.path)] = own - one.scored
    assert len(sums) > 1 and max(sums.values()) - min(sums.values()) < 0.02


def test_several_roundings_of_the_settled_path_are_among_them(model):
    found = judge(model)
    counts = [sum(one.path == other.path for other in found) for one in found]
    assert sorted(set(counts)) in ([1, 3], [3])


def test_weights_widths_and_choices_stay(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    judge(model)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert model.training
    assert not any(block.fixed_width for block in model.supernet.prunodes())
    assert not any(layer.path for layer in model.supernet.layers().values())


def test_a_path_that_cannot_keep_the_budget_is_left_out(model, monkeypatch):
    def refuse(model, path, *args):
        if CHOICE in path.items():
            raise SearchError('too dear')
        return round_widths(model, path, *args)

    monkeypatch.setattr(module, 'round_widths', refuse)
    found = judge(model)
    assert found and not any(CHOICE in one.path.items() for one in found)


def test_where_none_can_the_error_says_so(model):
    with pytest.raises(SearchError, match='At their narrowest hidden widths .* ms, more than'):
        judge(model, 0.5 * model.budget.smallest_ms)


def test_a_finalist_in_a_line(model):
    best = judge(model)[0]
    text = describe(best)
    assert f'stage2.layer1 irb_k5 {best.rounding.widths["stage2.layer1"]}' in text
    assert 'skip' not in text
