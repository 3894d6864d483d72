"""Hidden widths within the budget: exact over measured rises, by one granule where that does."""

import itertools
import random

import pytest

from prunet_mm.errors import SearchError
from prunet_mm.search.rounding import SHARE, round_widths
from prunet_mm.supernet.stochastic_layer import SKIP

PATH = {
    'stage1.layer1': 'irb_k3',
    'stage1.layer2': 'fused_irb_k3',
    'stage2.layer1': 'irb_k5',
    'stage2.layer2': 'irb_k3',
}


def prunodes(model, path=PATH):
    layers = model.supernet.layers()
    return {n: layers[n].candidates[choice] for n, choice in path.items() if choice != SKIP}


def cost_ms(model, widths):
    blocks = prunodes(model, PATH)
    return model.supernet.fixed_ms + sum(
        float(blocks[n].latency_ms[blocks[n].widths.index(width)]) for n, width in widths.items()
    )


@pytest.fixture
def at(make_resting, monkeypatch):
    """A model at random widths, whose loss is a random function of each; and these widths."""

    def build(seed, granularity=1):
        rng, model = random.Random(seed), make_resting(granularity=granularity)
        blocks, losses = prunodes(model), {}
        for name, block in blocks.items():
            block.rule.jump(rng.choice(block.widths))
            losses[name] = {width: rng.gauss(0, 1e-3) for width in block.widths}

        def task_loss(batches, path):
            assert path == PATH
            now = {n: block.fixed_width or block.nearest_width() for n, block in blocks.items()}
            return sum(losses[name][width] for name, width in now.items())

        monkeypatch.setattr(model, 'task_loss', task_loss)
        return model, {n: block.nearest_width() for n, block in blocks.items()}, losses

    return build


@pytest.mark.parametrize(('seed', 'share'), [(0, SHARE), (1, SHARE), (2, SHARE), (1, 0.97)])
def test_the_best_way_to_use_the_budget_is_that_of_brute_force(at, seed, share):
    model, nearest, losses = at(seed)
    budget_ms = cost_ms(model, nearest) * (0.99 + 0.01 * seed)
    near = [
        [(name, width) for width in block.widths if abs(width - nearest[name]) <= 1]
        for name, block in prunodes(model).items()
    ]
    fitting = [
        (sum(losses[name][width] for name, width in widths), dict(widths))
        for widths in itertools.product(*near)
        if share * budget_ms <= cost_ms(model, dict(widths)) <= budget_ms
    ]
    fitting.sort(key=lambda one: one[0])
    assert len(fitting) >= 3
    found = round_widths(model, PATH, budget_ms, [], 3, share)
    assert [one.widths for one in found] == [widths for _, widths in fitting[:3]]
    for one in found:
        assert one.granules <= 1
        assert one.blocked is None
        assert share * budget_ms <= one.predicted_ms <= budget_ms
        assert one.predicted_ms == pytest.approx(cost_ms(model, one.widths))
        assert one.moves == tuple(
            (name, nearest[name], width)
            for name, width in one.widths.items()
            if width != nearest[name]
        )
    assert not any(block.fixed_width for block in model.supernet.prunodes())


def test_on_the_budget_nothing_moves_that_the_loss_does_not_want(at, monkeypatch):
    model, nearest, _ = at(0)
    monkeypatch.setattr(
        model, 'task_loss',
        lambda *_: sum(
            abs(block.fixed_width - nearest[name]) if block.fixed_width else 0
            for name, block in prunodes(model).items()
        ),
    )  # fmt: skip
    (one,) = round_widths(model, PATH, cost_ms(model, nearest), [])
    assert (one.widths, one.moves, one.granules, one.blocked) == (nearest, (), 0, None)


@pytest.mark.parametrize('share', [0.8, 1.2])
def test_far_from_the_budget_layers_move_by_as_many_granules_as_it_takes(at, share):
    model, nearest, _ = at(1)
    budget_ms = share * cost_ms(model, nearest)
    (one,) = round_widths(model, PATH, budget_ms, [])
    assert SHARE * budget_ms <= one.predicted_ms <= budget_ms
    moved = max(abs(width - nearest[name]) for name, width in one.widths.items())
    assert one.granules == moved > 1


def test_what_no_longer_fits_is_named(at):
    model, _, _ = at(0, granularity=16)
    grids = [[(n, width) for width in b.widths] for n, b in prunodes(model).items()]
    costs = {widths: cost_ms(model, dict(widths)) for widths in itertools.product(*grids)}
    blocked = 0
    for share in (0.68, 0.75, 0.9, 0.9965):
        budget_ms = share * max(costs.values())
        (one,) = round_widths(model, PATH, budget_ms, [])
        best_ms = max(cost for cost in costs.values() if cost <= budget_ms)
        if best_ms >= SHARE * budget_ms:
            assert one.blocked is None
            continue
        blocked += 1
        assert one.predicted_ms == pytest.approx(best_ms)
        layer, width, more_ms = one.blocked
        wider = one.widths | {layer: width}
        assert cost_ms(model, wider) == pytest.approx(one.predicted_ms + more_ms)
        assert cost_ms(model, wider) > budget_ms
    assert blocked


def test_with_every_layer_at_its_widest_nothing_is_blocked(at):
    model, _, _ = at(0)
    widest = {name: block.widths[-1] for name, block in prunodes(model).items()}
    (one,) = round_widths(model, PATH, 2 * cost_ms(model, widest), [])
    assert (one.widths, one.blocked) == (widest, None)


def test_widths_that_cost_nothing_are_not_said_to_be_too_dear(at):
    model, _, _ = at(0)
    for block in model.supernet.prunodes():
        block.latency_ms.fill_(1.0)
    (one,) = round_widths(model, PATH, 5.0 + model.supernet.fixed_ms, [])
    assert one.predicted_ms == pytest.approx(4.0 + model.supernet.fixed_ms)
    assert one.blocked is None


def test_narrowest_widths_above_the_budget_are_one_sentence_that_names_both(at):
    model, _, _ = at(0)
    least_ms = cost_ms(model, {name: block.widths[0] for name, block in prunodes(model).items()})
    (one,) = round_widths(model, PATH, least_ms, [])
    assert one.predicted_ms == pytest.approx(least_ms)
    with pytest.raises(SearchError) as error:
        round_widths(model, PATH, 0.99 * least_ms, [])
    assert f'{least_ms:.4g} ms' in str(error.value)
    assert f'{0.99 * least_ms:.4g} ms' in str(error.value)
    assert str(error.value).count('. ') == 0


def test_a_path_without_hidden_widths_is_as_it_is(make_search, space):
    conv = dict(width=8, stride=2, depth=2, ops=['conv'], kernels=[3])
    space['stages'] = [conv, conv | dict(width=16)]
    model = make_search({'model.latency.budget_ratio': 1.0}, space=space).model
    path = dict.fromkeys(model.supernet.layers(), 'conv_k3')
    (one,) = round_widths(model, path, model.budget.largest_ms, [])
    assert (one.widths, one.granules, one.blocked) == ({}, 0, None)
    assert one.predicted_ms == pytest.approx(model.budget.largest_ms)
