import importlib.util
import itertools

import numpy as np
import pytest
import torch

SEEDS = range(200, 212)


@pytest.fixture(scope='module')
def bench(root):
    spec = importlib.util.spec_from_file_location('w', root / 'benchmarks/walking_rules.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_num_threads(1)
    return module


@pytest.fixture(scope='module')
def measured(bench):
    """Both rules at half and at a fifth of the largest latency, 250 steps."""
    return {
        (kind, ratio): bench.summary([bench.trial(seed, kind, ratio, steps=250) for seed in SEEDS])
        for kind, ratio in itertools.product(['width', 'logits'], [0.5, 0.2])
    }


def test_the_default_rule_meets_the_budget_before_rounding(measured):
    assert measured['width', 0.5]['derived_error'] <= 0.03


def test_the_default_rule_recovers_from_a_hard_budget(measured):
    result = measured['width', 0.2]
    assert result['derived_error'] <= 0.03
    assert result['lowest'] > -0.25


@pytest.mark.parametrize('ratio', [0.5, 0.2])
def test_the_default_rule_wins_most_of_what_uniform_widths_lose(measured, ratio):
    assert measured['width', ratio]['regret_of_uniforms'] < 0.3
    assert measured['width', ratio]['worse_than_uniform'] == 0


@pytest.mark.parametrize(('ratio', 'error'), [(0.5, 0.04), (0.2, 0.08)])
def test_logits_come_near_the_budget_and_beat_uniform_widths(measured, ratio, error):
    result = measured['logits', ratio]
    assert result['derived_error'] <= error
    assert result['regret_of_uniforms'] < 0.3


@pytest.mark.parametrize('kind', ['width', 'logits'])
@pytest.mark.parametrize('ratio', [0.5, 0.2])
def test_after_rounding_the_budget_is_kept_and_used(measured, kind, ratio):
    assert 0.98 <= measured[kind, ratio]['used'] <= 1


def test_the_optimum_of_a_surrogate_is_the_best_of_all_networks(bench):
    """By enumeration of a surrogate cut down to three layers of six widths each."""
    for seed in range(5):
        surrogate = bench.Surrogate(seed)
        for part in ('grids', 'losses', 'costs_ms'):
            setattr(surrogate, part, [values[:6] for values in getattr(surrogate, part)[:3]])
        budget_ms = 0.8 * sum(costs[-1] for costs in surrogate.costs_ms)
        feasible = [
            surrogate.loss(widths)
            for widths in itertools.product(*surrogate.grids)
            if surrogate.latency_ms(widths) <= budget_ms
        ]
        assert surrogate.optimum(budget_ms) == pytest.approx(min(feasible))


def test_the_noise_of_a_surrogate_is_that_of_a_real_search(bench):
    """Signal-to-noise per step between 0 and 0.9, as measured on CIFAR-10."""
    ratios = []
    for seed in SEEDS:
        surrogate = bench.Surrogate(seed)
        for grid, losses in zip(surrogate.grids, surrogate.losses, strict=True):
            slope = np.gradient(losses, grid / grid[-1])[len(grid) // 2]
            ratios.append(abs(slope) / surrogate.noise)
    assert max(ratios) == pytest.approx(0.9, rel=0.1)
    assert min(ratios) < 0.05
    assert np.median(ratios) < 0.45
