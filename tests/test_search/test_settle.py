"""One decision at a time: which comes first, what a near tie costs, and what stays as it is."""

import pytest
import torch

from prunet_mm.search.choosing import SLACK
from prunet_mm.search.rounding import round_widths
from prunet_mm.search.settle import circumstances, mean_and_error, next_decision, settled_path

FIRST, OTHER = 'stage1.layer1', 'stage2.layer1'  # neither can be skipped
COSTS = {  # in ms; as dear as its rival is each candidate but those of the second layer
    ('stage1.layer1', 'irb_k3'): 1.0,
    ('stage1.layer1', 'fused_irb_k3'): 1.0,
    ('stage1.layer2', 'irb_k3'): 1.0,
    ('stage1.layer2', 'fused_irb_k3'): 1.5,
    ('stage2.layer1', 'irb_k3'): 1.0,
    ('stage2.layer1', 'irb_k5'): 1.0,
    ('stage2.layer2', 'irb_k3'): 1.0,
    ('stage2.layer2', 'irb_k5'): 1.0,
}


@pytest.fixture
def model(make_resting, set_costs):
    model = make_resting()
    set_costs(model.supernet, COSTS)
    model.objective.multiplier.zero_()  # only the budget counts
    return model


@pytest.fixture
def measured(model, monkeypatch):
    """Let networks be judged by a function of their path; returns those that were."""

    def measure(loss):
        seen = []

        def task_losses(batches, path=None):
            seen.append(dict(path))
            return torch.tensor([loss(path) + image for image in batches], dtype=torch.float64)

        monkeypatch.setattr(model, 'task_losses', task_losses)
        return seen

    return measure


def no_measurement(path):
    raise AssertionError('nothing was to be measured')


def test_the_clearest_choice_is_settled_first_and_measures_nothing(model, teach, measured):
    teach(model, {(OTHER, 'irb_k5'): 1.0}, doubt=0.5)
    measured(no_measurement)
    decision = next_decision(model, 4.5, [0.0])
    assert (decision.layer, decision.choice) == (OTHER, 'irb_k3')
    assert decision.share > 0.99
    assert decision.rise is None


def test_a_near_tie_is_decided_by_measured_loss_within_the_budget(model, teach, measured):
    teach(model, {})
    budget_ms = 4.0
    for better, worse in [('irb_k3', 'fused_irb_k3'), ('fused_irb_k3', 'irb_k3')]:
        seen = measured(lambda path, worse=worse: 0.2 * (path[FIRST] == worse))
        others = {OTHER: 'irb_k3', 'stage1.layer2': 'irb_k3', 'stage2.layer2': 'irb_k3'}
        decision = next_decision(model, budget_ms, [0.0, 1.0], fixed=others)
        assert (decision.layer, decision.choice, decision.rival) == (FIRST, better, worse)
        assert decision.rise == pytest.approx(0.2)
        assert decision.rise_se == pytest.approx(0.0)  # what images have in common is no doubt
        assert {path[FIRST] for path in seen} == {better, worse}


def test_what_is_compared_in_a_near_tie_is_the_best_within_the_budget_either_way(
    model, teach, measured
):
    """The dearer choice has to find its latency elsewhere."""
    teach(model, {('stage2.layer2', 'skip'): 0.02, ('stage1.layer2', 'skip'): 0.5}, doubt=1.0)
    budget_ms = 4.0
    fixed = {FIRST: 'irb_k3', OTHER: 'irb_k3'}
    compared = False
    seen = measured(lambda path: 0.0)
    while decision := next_decision(model, budget_ms, [0.0], fixed):
        compared |= decision.rise is not None
        fixed[decision.layer] = decision.choice
    assert compared
    for path in [*seen, fixed]:
        assert model.supernet.path_ms(path) <= budget_ms * (1 + SLACK)


def test_a_settled_path_keeps_the_budget_and_changes_nothing(model, teach, measured):
    teach(model, {(FIRST, 'irb_k3'): 0.1, ('stage2.layer2', 'skip'): 0.3})
    measured(lambda path: 0.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    options = model.supernet.options()
    for budget_ms in (2.0, 3.0, 4.0):
        path = settled_path(model, budget_ms, [0.0])
        assert path.keys() == options.keys()
        assert model.supernet.path_ms(path) <= budget_ms * (1 + SLACK)
    assert path['stage2.layer2'] != 'skip' and path[FIRST] == 'fused_irb_k3'
    assert model.supernet.options() == options
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_what_would_move_the_expected_latency_by_more_than_3_percent_waits(
    model, teach, measured, set_costs
):
    """A clear choice between 1 ms and 3 ms comes behind a less clear one of equal costs."""
    set_costs(model.supernet, COSTS | {(FIRST, 'fused_irb_k3'): 3.0})
    teach(model, {(FIRST, 'fused_irb_k3'): 0.5, (OTHER, 'irb_k5'): 0.1})
    chances = {name: layer.chances() for name, layer in model.supernet.layers().items()}
    even = {name: torch.full((len(row),), 1 / len(row)) for name, row in chances.items()}
    model.supernet.believe(even)
    measured(lambda path: 0.0)
    fixed, order = {}, []
    while decision := next_decision(model, 4.5, [0.0], fixed):
        order.append(decision)
        fixed[decision.layer] = decision.choice
    names = [decision.layer for decision in order]
    assert names.index(OTHER) < names.index(FIRST)
    assert fixed[FIRST] == fixed[OTHER] == 'irb_k3'


def test_where_nothing_is_left_there_is_no_decision(model, measured):
    measured(no_measurement)
    model.supernet.settle()
    assert next_decision(model, 3.0, [0.0]) is None


def test_blends_are_settled_by_their_probabilities(make_resting, set_costs, monkeypatch):
    model = make_resting({'model.architecture.backbone.sampling': 'softmax'})
    set_costs(model.supernet, COSTS)
    monkeypatch.setattr(model, 'task_losses', no_measurement)
    model.supernet.layers()[OTHER].logits['irb_k5'].data.fill_(3.0)
    decision = next_decision(model, 4.5, [])
    assert (decision.layer, decision.choice) == (OTHER, 'irb_k5')
    assert decision.share == pytest.approx(torch.tensor([3.0, 0.0]).softmax(0)[0].item())


def test_the_error_of_a_mean_is_that_of_paired_differences():
    mean, error = mean_and_error(torch.tensor([0.1, 0.3, 0.2, 0.2]))
    assert (mean, error) == pytest.approx((0.2, 0.0816497 / 2), rel=1e-4)
    assert mean_and_error(torch.tensor([0.1])) == (pytest.approx(0.1), float('inf'))


def test_circumstances_tell_both_gaps(model, teach, monkeypatch):
    class Data:
        def probe(self, part, count, step):
            return [0.0] * count

    class Runner:
        seed = 0

        class train_loop:  # noqa: N801
            dataloader, iter = Data(), 7

    Runner.model = model
    teach(model, {(OTHER, 'irb_k5'): 1.0})
    derived = model.derived_path()
    monkeypatch.setattr(model, 'task_loss', lambda _, path: 1.0 if path == derived else 3.0)
    facts = circumstances(Runner)
    assert facts['derived_ms'] == model.supernet.path_ms(derived)
    assert facts['expected_ms'] == float(model.supernet.expected_latency_ms())
    assert facts['derived_loss'] == 1.0
    assert 1.0 <= facts['expected_loss'] <= 3.0
    assert {'multiplier', 'multiplier_average', 'budget_ms'} <= facts.keys()
    assert facts == circumstances(Runner)


@pytest.mark.parametrize('room', [0.0, 0.02, 0.1])
@pytest.mark.parametrize('walking', [True, False])
def test_whatever_is_settled_the_narrowest_widths_fit_the_budget(model, measured, room, walking):
    """Also at budgets that hardly anything fits, at present widths that are far too wide."""
    supernet, rng = model.supernet, torch.Generator().manual_seed(0)
    supernet.walking = walking
    measured(lambda path: float(len(str(path)) % 3))
    for _ in range(8):
        for layer in supernet.layers().values():
            for block in layer.candidates.values():
                costs = torch.rand(2, generator=rng, dtype=torch.float64).sort().values + 0.1
                block.latency_ms.copy_(torch.linspace(*costs.tolist(), len(block.latency_ms)))
        budget_ms = supernet.reachable_ms() * (1 + room)
        path = settled_path(model, budget_ms, [0.0, 1.0])
        (rounding,) = round_widths(model, path, budget_ms, [0.0], most=1)
        assert rounding.predicted_ms <= budget_ms * (1 + 1e-9)


def test_whatever_is_settled_the_rest_can_use_the_budget_at_its_widest(model, teach, measured):
    """Each skip alone is worth it; both together may leave a network that is too fast."""
    skips = [('stage1.layer2', 'skip'), ('stage2.layer2', 'skip')]
    teach(model, dict.fromkeys(skips, -1.0))
    measured(lambda path: 0.0)
    supernet = model.supernet
    supernet.fixed_ms = 0.0
    for layer in supernet.layers().values():
        for block in layer.candidates.values():
            block.latency_ms.copy_(torch.linspace(0.1, 1.0, len(block.latency_ms)))
            block.rule.jump(block.widths[-1])
    for budget_ms, skipped in [(4.0, 0), (3.7, 0), (3.0, 1), (2.8, 1), (2.0, 2)]:
        path = settled_path(model, budget_ms, [0.0])
        assert sum(choice == 'skip' for choice in path.values()) == skipped
    supernet.walking = False  # nothing could grow: the best choice within the budget
    assert all(settled_path(model, 4.0, [0.0])[name] == choice for name, choice in skips)
