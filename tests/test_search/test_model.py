import math
import random

import pytest
import torch
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS

from prunet_mm.errors import ConfigError, LatencyTableError, SearchError
from prunet_mm.search.finalists import measure_norms

BLENDS = {'model.architecture.backbone.sampling': 'softmax'}
ALL_OPEN = {
    'width': BLENDS,
    'logits': BLENDS | {'model.architecture.backbone.rule': dict(type='logits')},
    'gumbel': {'model.architecture.backbone.sampling': 'gumbel'},
    'accumulated': BLENDS
    | {
        'optim_wrapper.weights.accumulative_counts': 2,
        'optim_wrapper.architecture.accumulative_counts': 3,
    },
}


@pytest.fixture
def begun(make_search, started):
    """A search before its first step, with every kind of architecture parameter in play."""

    def begin(options=BLENDS):
        runner = started(make_search(options))
        model = runner.model
        model.supernet.walking = True
        model.supernet.open_skips()
        model.ramp.step(10**6, model.budget.largest_ms, steady=True)  # the budget begins to count
        for _ in range(2):  # so that optimisers have a momentum to apply
            weight_step(runner)
            architecture_step(runner)
        return runner

    return begin


def weight_step(runner):
    batches = iter(runner.train_loop.dataloader.probe('weights', 2))
    return runner.model.weight_step(batches, runner.optim_wrapper['weights'])


def architecture_step(runner):
    model, rng = runner.model, random.Random(0)
    batches = iter(runner.train_loop.dataloader.probe('architecture', 3))
    hard = model.supernet.sampling == 'hard'
    paths = [model.supernet.draw_path(rng, exploration=1.0) for _ in range(4 if hard else 0)]
    log = model.architecture_step(batches, runner.optim_wrapper['architecture'], paths)
    model.supernet.clamp_keeps()  # as the hook does
    return log


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
    for keep in model.supernet.architecture_parameters()['keep']:
        keep.data.fill_(0.5)  # free to move either way
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
    runner = begun(ALL_OPEN['accumulated'])
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
    monkeypatch.setattr(runner.model, 'forward', lambda *_, **__: losses)
    with pytest.raises(SearchError, match=r'^The loss is not finite: loss_box = nan\.$'):
        step(runner)
    assert same(before, runner.model.state_dict()) == before.keys()


def test_an_infinite_latency_term_is_named_too(begun, monkeypatch):
    runner = begun()
    monkeypatch.setattr(runner.model.objective, 'penalty', lambda ms: ms * math.inf)
    with pytest.raises(SearchError, match='not finite: total = inf'):
        architecture_step(runner)


# Hard paths


def test_an_architecture_step_judges_all_paths_on_one_batch(begun, monkeypatch):
    runner = begun({})
    model, drawn, judged, seen = runner.model, [], [], []

    def batches():
        for batch in runner.train_loop.dataloader.probe('architecture', 3):
            drawn.append(batch)
            yield batch

    losses = model.losses_on
    monkeypatch.setattr(
        model, 'losses_on', lambda images, samples: judged.append(images) or losses(images, samples)
    )
    monkeypatch.setattr(model.scores, 'observe', lambda *args: seen.append(args))
    paths = [model.supernet.draw_path(random.Random(i), 1.0) for i in range(5)]
    log = model.architecture_step(batches(), runner.optim_wrapper['architecture'], paths)
    assert len(drawn) == 1
    assert len(judged) == 5 and all(images is judged[0] for images in judged)
    ((told, values),) = seen
    assert told == paths
    assert float(log['loss']) == pytest.approx(float(values.mean()), rel=1e-5)
    assert len(set(values.tolist())) > 1


def test_a_hard_step_moves_widths_and_scores_alone(begun):
    runner = begun({})
    model = runner.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    architecture_step(runner)
    moved = before.keys() - same(before, model.state_dict())
    assert {name.split('.')[0] for name in moved} == {'architecture', 'objective', 'scores'}
    assert {name for name in moved if name.startswith('architecture')} == {
        name for name in before if name.endswith('.rule.width')
    }


def test_probabilities_follow_scores_and_the_price_of_latency(begun, monkeypatch):
    model = begun({}).model
    chances = []
    for price in (0.0, 1e6):
        monkeypatch.setattr(type(model), 'price_per_ms', price)
        model.weigh()
        chances.append({name: layer.chances() for name, layer in model.supernet.layers().items()})
    free, dear = chances
    for name in ('stage1.layer2', 'stage2.layer2'):
        assert dear[name]['skip'] > 0.99 > free[name]['skip']


def test_nothing_drops_in_a_test_and_everything_drops_again_after_it(begun):
    model = begun({}).model
    dropout = torch.nn.Dropout(0.5)
    model.supernet.stem.append(dropout)
    batches = [dict(inputs=torch.randn(8, 1, 8, 8).mul(50), data_samples=None)]
    model.train()
    forward, seen = model.architecture.extract_feat, []
    model.architecture.loss = lambda inputs, samples: (
        seen.append(dropout.training) or dict(loss=forward(inputs)[-1].abs().mean())
    )
    first, again = (float(model.task_losses(batches)) for _ in range(2))
    assert first == again
    assert seen == [False, False]
    assert dropout.training
    assert float(model.losses(batches[0])[0]) != first


def test_networks_are_compared_on_what_was_drawn_once(begun):
    runner = begun({})
    model, seen = runner.model, []
    model.data_preprocessor.to_onehot = True  # as with Mixup
    model.data_preprocessor.batch_augments = lambda images, targets: (
        images * torch.rand(()),
        targets.float(),
    )
    forward = model.architecture.loss
    model.architecture.loss = lambda images, samples: (
        seen.append(float(images.std())) or forward(images, samples)
    )
    architecture_step(runner)
    assert len(seen) == 4
    assert len(set(seen)) == 1
    networks = model.supernet.deal(random.Random(0), 3)
    batches = runner.train_loop.dataloader.probe('weights', 2)
    model.warm_up_step(iter(batches), runner.optim_wrapper['weights'], networks)
    assert len(seen) == 7
    assert seen[4] != seen[3]
    assert len(set(seen[4:])) == 1
    state = torch.get_rng_state()
    first, again = (model.task_losses(batches).tolist() for _ in range(2))
    assert first == again
    assert len(set(seen[7:9])) == 2
    assert seen[7:9] == seen[9:]
    measure_norms(model, batches)
    measure_norms(model, batches)
    assert len(set(seen[11:13])) == 2
    assert seen[11:13] == seen[13:]
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_decided_before_the_budget_counts_nor_while_lambda_is_away(
    make_resting, monkeypatch
):
    model = make_resting()
    monkeypatch.setattr('prunet_mm.search.model.NEAR', 0.05)
    model.ramp.now_ms.fill_(float(model.supernet.expected_latency_ms()))
    assert model.steady
    model.objective.average.fill_(float(model.objective.multiplier) + 1.0)
    assert not model.steady and not model.at_rest
    model.objective.average.copy_(model.objective.multiplier)
    expected_ms = float(model.supernet.expected_latency_ms())
    for share, rests in [(1.0, True), (1.009, True), (0.991, True), (1.02, False), (0.98, False)]:
        model.ramp.now_ms.fill_(expected_ms / share)
        model.ramp.targets_ms = (float(model.ramp.now_ms),)
        assert model.at_rest == rests
    model.ramp.now_ms.fill_(expected_ms / 1.1)  # lambda may stand still where it turns
    assert not model.steady
    model.ramp.now_ms.fill_(0.0)
    assert not model.steady


@pytest.mark.parametrize(
    ('share', 'decides'), [(1.04, True), (0.96, True), (1.06, False), (0.94, False)]
)
def test_nothing_is_decided_far_from_the_budget(make_resting, monkeypatch, share, decides):
    model = make_resting()
    monkeypatch.setattr('prunet_mm.search.model.NEAR', 0.05)
    model.ramp.now_ms.fill_(float(model.supernet.expected_latency_ms()) / share)
    assert model.steady == decides


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
    with pytest.raises(ConfigError, match='exactly one of budget_ms, budget_ratio, targets_ms'):
        build(make_search, latency__budget_ms=1.0)
    model = build(make_search)
    with pytest.raises(ConfigError, match='SearchLoop'):
        model.train_step({}, None)
