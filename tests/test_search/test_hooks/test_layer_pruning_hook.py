import re

import pytest
import torch

from prunet_mm.errors import ConfigError
from prunet_mm.supernet.stochastic_layer import SKIP

STEPS = {'train_cfg.max_iters': 25}  # of which 5 warm up
# Nothing but latency counts, at a price that is steady, from the first step on.
LATENCY_ALONE = {
    'model.objective': dict(type='FixedWeight', weight=1e6),
    'model.latency.budget_ratio': 0.38,
    'train_cfg.ramp': dict(begin=0.0, jump=True),
}
SKIPPABLE = {'stage1.layer2', 'stage2.layer2'}


def hook(**options):
    layers = dict(begin=0.2, end=0.8, threshold=0.7, interval=2, probes=2)
    return dict(RampHook={}, LayerPruningHook=layers | options)


def each_skip_adds(model, rise, monkeypatch, spread=0.0):
    """Let every layer that a network lacks add so much to its loss, on two images not alike."""

    def task_losses(batches, path=None):
        skips = sum(choice == SKIP for choice in (path or {}).values())
        around = torch.tensor([-spread, spread], dtype=torch.float64)
        return 1 + skips * (rise + around)

    monkeypatch.setattr(model, 'task_losses', task_losses)


def test_removes_layers_whose_test_agrees(make_lone_search, history, log, monkeypatch):
    runner = make_lone_search(hook(), STEPS | LATENCY_ALONE)
    lines = log(runner)
    each_skip_adds(runner.model, 0.01, monkeypatch)
    runner.train()
    removed = [(row, event) for row in history() for event in row['events']]
    assert {event['layer'] for _, event in removed} == SKIPPABLE
    assert len({row['step'] for row, _ in removed}) == 2  # one at a time
    for row, event in removed:
        assert event['kind'] == 'layer'
        assert event['probability'] < event['threshold'] == 0.7
        assert event['loss_rise'] == pytest.approx(0.01)
        assert event['loss_rise_se'] == pytest.approx(0, abs=1e-9)
        assert event['worth'] == pytest.approx(event['freed_ms'] * 1e6 / row['budget_ms'])
        assert event['multiplier'] == 1e6
        assert 0.2 <= row['progress'] <= 0.8
        for later in history()[row['step'] - 6 :]:
            assert event['layer'] not in later['probabilities'] | later['keep']
        (line,) = [line for line in lines if event['layer'] in line and 'removed' in line]
        assert f'{event["probability"]:.3f}' in line
        assert '0.0100 +- 0.0000' in line and 'at lambda 1000000.000' in line
    assert set(runner.model.supernet.layers()) == {'stage1.layer1', 'stage2.layer1'}
    alive = {id(parameter) for parameter in runner.model.parameters()}
    for wrapper in runner.optim_wrapper.values():
        held = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
        assert {id(p) for p in wrapper.optimizer.state} <= held <= alive


def test_no_layer_goes_that_the_budget_needs(make_lone_search, history, monkeypatch):
    runner = make_lone_search(hook(), STEPS | LATENCY_ALONE | {'model.latency.budget_ratio': 0.95})
    each_skip_adds(runner.model, -1.0, monkeypatch)
    supernet, budget_ms = runner.model.supernet, runner.model.budget.budget_ms
    assert all(supernet.widest_ms(without=name) < budget_ms for name in SKIPPABLE)
    runner.train()
    rows = history()
    assert min(row['keep'].get('stage1.layer2', 1) for row in rows) < 0.7
    assert set(rows[-1]['probabilities']) > SKIPPABLE


@pytest.mark.parametrize(('rise', 'spread'), [(1e9, 0.0), (0.01, 1e9)])
def test_a_low_keep_coefficient_alone_removes_nothing(
    make_lone_search, history, log, monkeypatch, rise, spread
):
    """A layer stays that is worth its latency, and one of which its test does not tell."""
    runner = make_lone_search(hook(), STEPS | LATENCY_ALONE)
    lines = log(runner)
    each_skip_adds(runner.model, rise, monkeypatch, spread)
    runner.train()
    rows = history()
    assert set(rows[-1]['probabilities']) > SKIPPABLE
    assert not any(row['events'] for row in rows)
    for layer in SKIPPABLE:
        keeps = [row['keep'][layer] for row in rows if layer in row['keep']]
        assert 0 < min(keeps) < 0.7
        assert any(f'{layer} stays' in line for line in lines)


def test_a_passed_test_alone_removes_nothing(make_lone_search, history, monkeypatch):
    runner = make_lone_search(hook(threshold=1e-4), STEPS | LATENCY_ALONE)
    each_skip_adds(runner.model, -1.0, monkeypatch)
    runner.train()
    assert set(history()[-1]['probabilities']) > SKIPPABLE


def test_skips_open_at_the_beginning_and_not_before(make_lone_search, history):
    make_lone_search(hook(begin=0.5, interval=1000), STEPS).train()
    for row in history():
        assert set(row['keep']) == (SKIPPABLE if row['progress'] >= 0.5 else set())
        assert all(0 < keep <= 1 for keep in row['keep'].values())


@pytest.mark.parametrize('threshold', [0.3, 0.8])
def test_of_blends_a_keep_reaches_the_threshold_at_the_least_rate_that_is_accepted(
    make_lone_search, history, threshold
):
    # 60 steps on the architecture, of which 36 with a skip
    steps = {'train_cfg.max_iters': 65, 'train_dataloader.batch_size': 2}
    steps |= {'train_cfg.architecture_batch_size': 2, 'default_hooks.checkpoint.interval': 1000}
    steps |= {'model.architecture.backbone.sampling': 'softmax'}
    least = 4 * (1 - threshold) / 36 / 1e-3

    def search(factor):
        rates = {
            'optim_wrapper.architecture.optimizer.lr': 1e-3,
            'optim_wrapper.architecture.paramwise_cfg.keep': factor,
        }
        never = hook(threshold=threshold, interval=1000)
        return make_lone_search(never, steps | LATENCY_ALONE | rates)

    with pytest.raises(ConfigError, match=rf'from 1 to {threshold} in 36 ') as error:
        search(0.99 * least).train()
    factor = float(re.search(r'paramwise_cfg.keep of at least (\S+), or', str(error.value))[1])
    assert factor == pytest.approx(least, rel=1e-3)
    search(factor).train()  # the factor that is named is accepted
    keeps = [row['keep'] for row in history() if 0.2 <= row['progress'] <= 0.8]
    assert max(keeps[-1].values()) < threshold


@pytest.mark.parametrize(
    'options',
    [
        dict(begin=0.8),
        dict(end=1.2),
        dict(begin=-0.1),
        dict(threshold=1),
        dict(threshold=0),
        dict(probes=1),
    ],
)
def test_impossible_options_are_refused(make_lone_search, options):
    with pytest.raises(ConfigError, match='LayerPruningHook: found begin=.*expected 0 <= begin'):
        make_lone_search(hook(**options))
