import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS

from prunet_mm.errors import ConfigError, LatencyTableError, SearchError

ALL_OPEN = {
    'width': {},
    'logits': {'model.architecture.backbone.rule': dict(type='logits')},
    'gumbel': {'model.architecture.backbone.sampling': 'gumbel'},
    'accumulated': {
        'optim_wrapper.weights.accumulative_counts': 2,
        'optim_wrapper.architecture.accumulative_counts': 3,
    },
}


@pytest.fixture
def begun(make_search, started):
    """A search before its first step, with every kind of architecture parameter in play."""

    def begin(options=()):
        runner = started(make_search(options))
        runner.model.supernet.walking = True
        runner.model.supernet.open_skips()
        for _ in range(2):  # so that optimisers have a momentum to apply
            weight_step(runner)
            architecture_step(runner)
        return runner

    return begin


def weight_step(runner):
    batches = iter(runner.train_loop.dataloader.probe('weights', 2))
    return runner.model.weight_step(batches, runner.optim_wrapper['weights'])


def architecture_step(runner):
    batches = iter(runner.train_loop.dataloader.probe('architecture', 3))
    return runner.model.architecture_step(batches, runner.optim_wrapper['architecture'])


def parts(model):
    """Copies of weights, architecture parameters and norm statistics, by name."""
    architecture = {
        id(p) for group in model.supernet.architecture_parameters().values() for p in group
    }
    weights, searched = {}, {}
    for name, parameter in model.named_parameters():
        (searched if id(parameter) in architecture else weights)[name] = parameter.detach().clone()
    statistics = {
        name: buffer.clone()
        for name, buffer in model.named_buffers()
        if 'running' in name or 'tracked' in name
    }
    assert weights and searched and statistics
    return weights, searched, statistics


def same(before, after):
    return {name for name in before if torch.equal(before[name], after[name])}


@pytest.mark.parametrize('options', ALL_OPEN)
def test_an_architecture_step_touches_neither_weights_nor_statistics(begun, options):
    runner = begun(ALL_OPEN[options])
    model = runner.model
    weights, searched, statistics = parts(model)
    for parameter in model.weight_parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    architecture_step(runner)
    now = parts(model)
    assert same(weights, now[0]) == weights.keys()
    assert same(statistics, now[2]) == statistics.keys()
    assert all((p.grad == 0.5).all() for p in model.weight_parameters())
    assert not same(searched, now[1])
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('options', ALL_OPEN)
def test_a_weight_step_touches_no_architecture_parameter(begun, options):
    runner = begun(ALL_OPEN[options])
    weights, searched, statistics = parts(runner.model)
    groups = runner.model.supernet.architecture_parameters().values()
    for parameter in [p for group in groups for p in group]:
        parameter.grad = torch.ones_like(parameter)
    weight_step(runner)
    now = parts(runner.model)
    assert same(searched, now[1]) == searched.keys()
    assert all((p.grad == 1).all() for group in groups for p in group)
    assert not same(statistics, now[2])
    assert not {name for name in same(weights, now[0]) if weights[name].any()}


def test_the_multiplier_moves_once_an_architecture_step(begun):
    runner = begun({'optim_wrapper.architecture.accumulative_counts': 3})
    objective = runner.model.objective
    seen = []
    objective.update = seen.append
    weight_step(runner)
    assert not seen
    architecture_step(runner)
    assert seen == [float(runner.model.supernet.expected_latency_ms())]


@pytest.mark.parametrize('part', ['weights', 'architecture'])
def test_accumulated_batches_make_the_same_step_as_one_of_them_all(begun, monkeypatch, part):
    def gradients(count, batches):
        runner = begun()
        runner.model.eval()  # else the statistics, too, are those of smaller batches
        wrapper = runner.optim_wrapper[part]
        wrapper._accumulative_counts, wrapper._inner_count = count, 0
        held = [p for group in wrapper.optimizer.param_groups for p in group['params']]
        seen = []
        monkeypatch.setattr(wrapper, 'step', lambda: seen.extend(p.grad.clone() for p in held))
        take = {'weights': 'weight_step', 'architecture': 'architecture_step'}[part]
        getattr(runner.model, take)(iter(batches(runner.train_loop.dataloader)), wrapper)
        return seen

    apart = gradients(3, lambda data: data.probe(part, 3))
    together = gradients(1, lambda data: [joined(data.probe(part, 3))])
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-5)


def joined(batches):
    return dict(
        inputs=torch.cat([batch['inputs'] for batch in batches]),
        data_samples=[sample for batch in batches for sample in batch['data_samples']],
    )


def test_task_loss_changes_nothing_and_repeats(begun):
    runner = begun({'model.architecture.backbone.sampling': 'gumbel'})
    model, batches = runner.model, runner.train_loop.dataloader.probe('architecture', 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = model.task_loss(batches)
    assert first == model.task_loss(batches)  # gumbel noise is off
    assert same(before, model.state_dict()) == before.keys()
    assert {layer.sampling for layer in model.supernet.layers().values()} == {'gumbel'}


@pytest.mark.parametrize('step', [weight_step, architecture_step])
def test_a_loss_that_is_not_finite_stops_before_the_step(begun, monkeypatch, step):
    runner = begun()
    before = {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    good, bad = torch.tensor(1.0, requires_grad=True), torch.tensor(math.nan, requires_grad=True)
    losses = dict(loss_cls=good, loss_box=bad)
    monkeypatch.setattr(runner.model, '_run_forward', lambda *_, **__: losses)
    with pytest.raises(SearchError, match=r'^The loss is not finite: loss_box = nan\.$'):
        step(runner)
    assert same(before, runner.model.state_dict()) == before.keys()


def test_an_infinite_latency_term_is_named_too(begun, monkeypatch):
    runner = begun()
    monkeypatch.setattr(runner.model.objective, 'penalty', lambda ms: ms * math.inf)
    with pytest.raises(SearchError, match='not finite: total = inf'):
        architecture_step(runner)


def build(make_search, **changes):
    config = make_search().cfg.model.to_dict()
    for path, value in changes.items():
        *parents, last = path.split('__')
        at = config
        for name in parents:
            at = at[name]
        at[last] = value
    return MODELS.build(ConfigDict(config))


def test_bad_configs_are_refused(make_search):
    with pytest.raises(ConfigError, match='holds 0 SuperNets; expected exactly one'):
        build(make_search, architecture__backbone=dict(type='ResNet', depth=18, in_channels=1))
    with pytest.raises(LatencyTableError, match='no latency table nowhere.json'):
        build(make_search, latency__table='nowhere.json')
    with pytest.raises(ConfigError, match='exactly one of budget_ms and budget_ratio'):
        build(make_search, latency__budget_ms=1.0)
    model = build(make_search)
    with pytest.raises(ConfigError, match='SearchLoop'):
        model.train_step({}, None)
