"""A trained network that is cut by a rule: importance of channels, and four rules."""

import json
import random
from pathlib import Path

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.models import PRUNet
from prunet_mm.search.choosing import values_of
from prunet_mm.search.hooks.trained_start_hook import judge_alone
from prunet_mm.search.importance import sort_channels, taylor
from prunet_mm.search.rules import RULES, choices, latency_ms
from prunet_mm.spec import NetworkSpec
from prunet_mm.supernet.stochastic_layer import SKIP

# 8 px, two stages of two inverted residuals
ARCH = str(Path(__file__).parents[1] / 'data/trained_network.json')
SPACE = dict(type='around', arch=ARCH, granularity=8)


@pytest.fixture
def checkpoint(lively, tmp_path):
    network = lively(ARCH)
    state = {f'backbone.{name}': tensor for name, tensor in network.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
    return str(tmp_path / 'trained.pth')


@pytest.fixture
def options(checkpoint):
    init = dict(type='TrainedNetwork', arch=ARCH, checkpoint=checkpoint)
    return {'model.architecture.backbone.init_cfg': init, 'model.latency.budget_ratio': 0.75}


@pytest.fixture
def trained(make_search, started, options):
    """The runner of a search that starts as the trained network."""
    return started(make_search(options, space=SPACE))


@pytest.fixture
def batches(trained):
    return trained.train_loop.dataloader.probe('architecture', 4)


def test_a_permutation_by_importance_changes_no_output(trained, batches):
    model = trained.model.eval()
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        before = model(x, mode='tensor')
        importance = taylor(model, batches)
        sort_channels(model, importance)
        torch.testing.assert_close(model(x, mode='tensor'), before, rtol=1e-5, atol=1e-6)
    again = taylor(model, batches)
    for name, values in again.items():
        torch.testing.assert_close(values, importance[name].sort(descending=True).values)
    assert model.supernet.derive(name='trained').layers == NetworkSpec.load(ARCH).layers


def test_taylor_importance_is_the_slope_of_the_loss_in_a_channels_gate(trained, batches):
    model = trained.model.eval()
    importances = taylor(model, batches[:1])['stage1.layer2']
    most = int(importances.argmax())  # far above a float's rounding of the loss
    block = model.supernet.layers()['stage1.layer2'].candidates['irb_k3'].block
    losses = []
    for gate in (1.01, 0.99):
        weight = block.project.conv.weight
        weight.data[:, most] *= gate
        losses.append(float(model.losses(batches[0])[0].detach()))
        weight.data[:, most] /= gate
    assert float(importances[most]) == pytest.approx(abs(losses[0] - losses[1]) / 0.02, rel=0.05)


def test_importance_without_data_is_refused_in_a_sentence(trained, make_search, options):
    with pytest.raises(ConfigError, match="takes images, at least one batch .*'magnitude'"):
        taylor(trained.model, [])
    options['model.architecture.backbone.init_cfg']['importance'] = 'size'
    with pytest.raises(ConfigError, match="found 'size', expected one of taylor, magnitude"):
        make_search(options, space=SPACE).model.init_weights()


def test_a_search_sorts_by_taylor_before_its_first_step_and_only_then(
    make_lone_search, options, log
):
    options |= {'train_cfg.max_iters': 2, 'train_cfg.warmup_iters': 0}
    options |= {'default_hooks.checkpoint.interval': 1}
    runner = make_lone_search(dict(TrainedStartHook=dict(images=2)), options, space=SPACE)
    lines = log(runner)
    runner.train()
    assert sum('sorted by Taylor importance on 2 images' in line for line in lines) == 1
    options['model.architecture.backbone.init_cfg']['importance'] = 'magnitude'
    runner = make_lone_search(dict(TrainedStartHook={}), options, 'other', space=SPACE)
    lines = log(runner)
    runner.train()
    assert not any('Taylor' in line for line in lines)


def test_scores_begin_with_what_each_alternative_alone_costs(trained, batches):
    model = trained.model
    path = model.supernet.likeliest_path()
    for _ in range(20):
        judge_alone(model, batches[:1])
    model.supernet.open_skips()
    scores = values_of(model.supernet, model.scores, mean=True)
    for name, options in model.supernet.options().items():
        own = options.index(path[name])
        for option, score in zip(options, scores[name][0].tolist(), strict=True):
            other = model.task_loss(batches[:1], {**path, name: option})
            rise = other - model.task_loss(batches[:1], path)
            assert score - float(scores[name][0, own]) == pytest.approx(rise, abs=0.02), name


def test_a_budget_ratio_is_of_the_network_that_the_space_is_around(trained):
    model = trained.model
    origin_ms = model.table.predict_ms(model.supernet.space.origin)
    assert model.budget.budget_ms == pytest.approx(0.75 * origin_ms)
    assert origin_ms < model.budget.largest_ms  # which has larger kernels


@pytest.mark.parametrize('name', RULES)
def test_every_rule_keeps_the_budget_and_uses_it(trained, batches, name):
    model = trained.model
    budget_ms = model.budget.budget_ms
    network = RULES[name](model, budget_ms, batches, random.Random(0))
    assert list(network) == list(model.supernet.layers())
    assert 0.8 * budget_ms < latency_ms(model, network) <= budget_ms * (1 + 1e-9)
    if name == 'uniform':
        assert [one.option for one in network.values()] == ['irb_k3', 'irb_k3', 'irb_k5', 'irb_k3']


def test_uniform_takes_a_larger_share_that_fits_although_a_smaller_one_does_not(trained, batches):
    model = trained.model
    own = {name: found[0].option for name, found in choices(model).items()}
    blocks = [model.supernet.layers()[name].candidates[option] for name, option in own.items()]
    widest = {name: block.widths[-1] for name, block in zip(own, blocks, strict=True)}
    for block in blocks:
        block.latency_ms[-2] *= 100  # a width that suits the hardware badly
    budget_ms = model.supernet.fixed_ms + sum(float(block.latency_ms[-1]) for block in blocks)
    network = RULES['uniform'](model, budget_ms, batches, random.Random(0))
    assert {name: one.width for name, one in network.items()} == widest


def test_the_taylor_knapsack_is_exact(trained, batches):
    model = trained.model
    budget_ms = model.budget.budget_ms
    importance = taylor(model, batches)
    found = RULES['taylor'](model, budget_ms, batches, random.Random(0))

    def kept(network):
        return sum(float(importance[name][: one.width].sum()) for name, one in network.items())

    rng, options = (
        random.Random(1),
        {
            name: [one for one in some if one.option in (some[0].option, SKIP)]
            for name, some in choices(model).items()
        },
    )
    for _ in range(3000):
        other = {name: rng.choice(some) for name, some in options.items()}
        if latency_ms(model, other) <= budget_ms:
            assert kept(other) <= kept(found) + 1e-9


def test_lana_measures_each_alternative_alone(trained, batches, monkeypatch):
    model, supernet = trained.model, trained.model.supernet
    path = supernet.likeliest_path()
    judged = []
    true = model.task_loss

    def task_loss(batches, chosen=None):
        judged.append(sum(chosen[name] != path[name] for name in path))
        return true(batches, chosen)

    monkeypatch.setattr(model, 'task_loss', task_loss)
    RULES['lana'](model, model.budget.budget_ms, batches, random.Random(0))
    assert max(judged) == 1


def test_what_no_network_of_the_rule_is_as_fast_as(trained, batches):
    with pytest.raises(SearchError, match='no network is as fast as 0.0001 ms'):
        RULES['uniform'](trained.model, 1e-4, batches, random.Random(0))


def test_a_rule_ends_in_what_a_search_ends_in(make_search, options, tmp_path):
    runner = make_search(options, space=SPACE)
    runner.apply_rule('taylor')
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert runner.model.supernet.space.contains(spec)
    x = torch.randn(2, 1, 8, 8)
    init = dict(type='SuperNet', checkpoint=str(tmp_path / 'work/searched.pth'))
    network = PRUNet(spec.to_dict(), init_cfg=init)
    network.init_weights()
    with torch.no_grad():
        expected = runner.model.supernet.eval()(x)[0]
        torch.testing.assert_close(network.eval()(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_network_that_a_search_starts_as_may_teach_it(
    make_search, started, options, checkpoint
):
    teacher = dict(
        type='ImageClassifier',
        backbone=dict(
            type='PRUNet',
            arch=ARCH,
            init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
    )
    taught = dict(type='DistillingClassifier', teacher=teacher)
    options |= {f'model.architecture.{name}': value for name, value in taught.items()}
    runner = started(make_search(options, space=SPACE))
    model, data = runner.model, runner.train_loop.dataloader
    log = model.weight_step(iter(data.probe('weights', 1)), runner.optim_wrapper['weights'])
    total = float(log['loss_cls'] + log['loss_distill'])
    assert float(log['loss']) == pytest.approx(total, rel=1e-5)
    x = torch.randn(2, 1, 8, 8)
    start = started(make_search(options, space=SPACE)).model.supernet.eval()(x)[0]
    torch.testing.assert_close(model.architecture.teacher.backbone(x)[0], start)


def test_a_rule_takes_a_trained_network(make_search):
    with pytest.raises(ConfigError, match='--rule lana cuts a trained network'):
        make_search().apply_rule('lana')


def test_widths_are_as_before_when_all_is_measured(trained, batches):
    prunodes = list(trained.model.supernet.prunodes())
    before = [one.fixed_width for one in prunodes]
    RULES['lana'](trained.model, trained.model.budget.budget_ms, batches, random.Random(0))
    assert [one.fixed_width for one in prunodes] == before


def test_a_search_shrinks_the_network_and_another_start_takes_what_it_found(
    make_search, options, tmp_path
):
    steps = {'train_cfg.max_iters': 16, 'train_cfg.warmup_iters': 0}
    steps |= {'train_cfg.ramp': dict(begin=0.0, fall=0.6), 'train_cfg.paths': 2}
    runner = make_search(options | steps, space=SPACE, hooks=dict(TrainedStartHook={}))
    runner.train()
    found = NetworkSpec.load(tmp_path / 'work/subnet.json')
    budgets = [row['budget_ms'] for row in history_of(tmp_path / 'work')]
    assert budgets[1:] == sorted(budgets[1:], reverse=True)
    assert budgets[-1] == pytest.approx(runner.model.budget.budget_ms)
    assert runner.model.supernet.space.contains(found)
    assert json.loads((tmp_path / 'work/found.json').read_text())['trained'] == ['head']

    other = make_search(options, 'other', space=SPACE)
    other.apply_rule(str(tmp_path / 'work/searched.pth'))
    assert NetworkSpec.load(tmp_path / 'other/subnet.json').layers == found.layers
    searched, started = (
        load_checkpoint_file(tmp_path / name / 'searched.pth')['state_dict']
        for name in ('work', 'other')
    )
    name = 'architecture.backbone.stem.0.conv.conv.weight'
    trained = load_checkpoint_file(tmp_path / 'trained.pth')['state_dict']
    assert torch.equal(started[name], trained['backbone.stem.0.conv.conv.weight'])
    assert not torch.equal(searched[name], started[name])


def history_of(work_dir):
    return [json.loads(line) for line in (work_dir / 'history.jsonl').read_text().splitlines()]
