import math

import pytest
import torch

from prunet_mm.search.objective import (
    OBJECTIVES,
    AugmentedLagrangian,
    FBNetProduct,
    FixedWeight,
    Hinge,
)

ALL = [AugmentedLagrangian, FixedWeight, FBNetProduct, Hinge]


def value(objective, expected_ms, task=2.0):
    """The loss, and its slopes in the task loss and in E[lat]."""
    task = torch.tensor(task, dtype=torch.float64, requires_grad=True)
    expected_ms = torch.tensor(expected_ms, dtype=torch.float64, requires_grad=True)
    loss = objective(task, expected_ms)
    loss.backward()
    return loss.item(), task.grad.item(), expected_ms.grad.item()


@pytest.mark.parametrize('kind', ALL)
def test_each_is_built_by_name_with_its_defaults(kind):
    config = dict(type=kind.__name__)
    objective = OBJECTIVES.build(config, default_args=dict(budget_ms=3.0))
    assert type(objective) is kind
    assert objective.budget_ms == 3.0


@pytest.mark.parametrize('kind', ALL)
def test_over_the_budget_latency_costs_and_the_task_still_counts(kind):
    _, task_slope, slope = value(kind(3.0), 4.0)
    assert slope > 0
    assert task_slope > 0


@pytest.mark.parametrize('kind', ALL)
def test_the_multiplier_is_state(kind):
    objective = kind(3.0)
    assert dict(objective.named_parameters()) == {}
    for expected_ms in (5.0, 4.0, 3.5):
        objective.update(expected_ms)
    resumed = kind(3.0)
    resumed.load_state_dict(objective.state_dict())
    for expected_ms in (3.4, 2.9):
        objective.update(expected_ms)
        resumed.update(expected_ms)
    assert value(resumed, 3.3) == value(objective, 3.3)


@pytest.mark.parametrize('kind', [FixedWeight, FBNetProduct, Hinge])
def test_only_the_augmented_lagrangian_adapts(kind):
    objective = kind(3.0)
    before = value(objective, 4.0)
    objective.update(6.0)
    assert value(objective, 4.0) == before


@pytest.mark.parametrize('kind', ALL)
def test_a_single_precision_loss_stays_single(kind):
    loss = kind(3.0)(torch.tensor(1.0), torch.tensor(4.0))
    assert loss.dtype == torch.float32


# The augmented Lagrangian


def test_the_penalty_is_zero_and_lambda_alone_pulls_on_the_budget():
    objective = AugmentedLagrangian(3.0, weight=0.7)
    loss, _, slope = value(objective, 3.0)
    assert loss == pytest.approx(2.0)
    assert slope == pytest.approx(0.7 / 3.0)


def test_the_quadratic_term_is_stiffer_the_larger_lambda_is():
    gap = math.log(4 / 3)
    for weight in (0.0, 1.5, -1.5):
        loss, _, _ = value(AugmentedLagrangian(3.0, weight=weight, mu=4.0), 4.0)
        assert loss == pytest.approx(2 + weight * gap + (1 + abs(weight)) * 2 * gap**2)


def test_lambda_follows_the_gap_in_its_logarithm():
    objective = AugmentedLagrangian(3.0, rate=0.1, limit=0.1)
    objective.update(3.0 * math.exp(0.05))
    assert float(objective.multiplier) == pytest.approx(0.005)
    objective.update(3.0 * math.exp(-0.05))
    assert float(objective.multiplier) == pytest.approx(0.005 - 0.005 * 1.005)


@pytest.mark.parametrize('sign', [1, -1])
def test_a_large_gap_is_integrated_up_to_the_limit_only(sign):
    """Anti-windup: what piles up on the way to a hard budget is bounded per step."""
    objective = AugmentedLagrangian(3.0, rate=0.1, limit=0.1)
    objective.update(3.0 * math.exp(sign * 1.6))
    assert float(objective.multiplier) == pytest.approx(sign * 0.01)


def test_twice_the_budget_counts_as_much_as_half_of_it():
    objective = AugmentedLagrangian(3.0)
    assert value(objective, 6.0)[0] == pytest.approx(value(objective, 1.5)[0])


@pytest.mark.parametrize('price', [0.05, 0.5, 5.0])
@pytest.mark.parametrize('start_ms', [2.0, 4.0, 15.0])
def test_it_ends_on_the_budget_whatever_the_task_pays_for_latency(price, start_ms):
    """A task loss of -price * log(latency), descended at a bounded speed."""
    objective = AugmentedLagrangian(3.0)
    log_ms = math.log(start_ms)
    path = []
    for _ in range(500):
        expected_ms = torch.tensor(math.exp(log_ms), dtype=torch.float64, requires_grad=True)
        objective(-price * expected_ms.log(), expected_ms).backward()
        slope = float(expected_ms.grad) * math.exp(log_ms)
        log_ms -= 0.01 * slope / (0.1 + abs(slope))
        objective.update(math.exp(log_ms))
        path.append(math.exp(log_ms) / 3.0)
    assert path[-1] == pytest.approx(1.0, abs=0.01)
    assert float(objective.multiplier) == pytest.approx(price, rel=0.25)
    assert min(path) > min(start_ms / 3.0, 1.0) - 0.25


def test_a_millisecond_is_worth_what_lambda_pays_for_it():
    """The quadratic term steers towards the budget and says no price."""
    objective = AugmentedLagrangian(3.0, weight=0.6)
    assert objective.price_per_ms(3.0, 1.0) == pytest.approx(0.2)
    assert objective.price_per_ms(6.0, 1.0) == pytest.approx(0.1)
    assert AugmentedLagrangian(3.0, weight=-0.6).price_per_ms(3.0, 1.0) == 0


def test_lambda_is_steady_once_it_stays_near_its_average():
    objective = AugmentedLagrangian(3.0)
    assert objective.steady
    for _ in range(40):
        objective.update(4.0)
    assert not objective.steady
    resumed = AugmentedLagrangian(3.0)
    resumed.load_state_dict(objective.state_dict())
    assert not resumed.steady
    for _ in range(60):
        resumed.update(3.0)
    assert resumed.steady
    assert FixedWeight(3.0).steady


# The others


def test_fixed_weight_is_linear_in_the_share_of_the_budget():
    assert value(FixedWeight(4.0, weight=0.5), 6.0)[0] == pytest.approx(2.0 + 0.75)
    assert FixedWeight(4.0, weight=0.5).price_per_ms(6.0, 2.0) == pytest.approx(0.125)


def test_fbnet_multiplies_the_loss_by_a_power_of_the_logarithm_of_microseconds():
    objective = FBNetProduct(4.0, weight=0.2, beta=0.6)
    assert value(objective, 6.0)[0] == pytest.approx(2 * 0.2 * math.log(6000) ** 0.6)
    # Below 1 ms, where a logarithm of milliseconds would be negative, faster is still better.
    assert value(objective, 0.05)[2] > 0
    assert value(objective, 0.05)[0] < value(objective, 0.5)[0]
    assert objective.price_per_ms(6.0, 2.0) == pytest.approx(value(objective, 6.0)[2])


def test_hinge_leaves_networks_within_the_budget_alone():
    objective = Hinge(4.0, weight=2.0)
    assert value(objective, 3.9) == (2.0, 1.0, 0.0)
    assert value(objective, 5.0)[0] == pytest.approx(2.5)
    assert objective.price_per_ms(3.9, 2.0) == 0
    assert objective.price_per_ms(5.0, 2.0) == pytest.approx(0.5)
