"""Single paths: each is a network that could be derived, and costs what that network does."""

import random

import pytest
import torch

from prunet_mm.models.blocks import build_block
from prunet_mm.supernet import Prunode
from prunet_mm.supernet.stochastic_layer import SKIP


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, 8)


@pytest.fixture
def supernet(make_supernet, table):
    net = make_supernet(rule=dict(type='width', initial=0.5))
    net.attach_latency(table)
    return net


def paths(supernet, count=12):
    """Any paths, with skips."""
    return [any_path(supernet, random.Random(seed)) for seed in range(count)]


def any_path(supernet, rng):
    return {name: rng.choice(options) for name, options in supernet.all_options().items()}


def fix_widths(supernet, seed=0):
    rng = random.Random(seed)
    for prunode in supernet.prunodes():
        prunode.fixed_width = rng.choice(prunode.widths)


def derived(supernet, path):
    """The network of a path, at the fixed widths."""
    layers, chosen = supernet.layers(), []
    for position in supernet.space.positions():
        choice = path[position.name]
        if choice == SKIP:
            continue
        candidate = next(c for c in position.candidates if c.name == choice)
        block = layers[position.name].candidates[choice]
        width = block.fixed_width if isinstance(block, Prunode) else 0
        chosen.append((position, candidate, width))
    return supernet.space.network(chosen)


# What a path computes


def test_a_path_computes_the_blocks_of_the_derived_network_and_nothing_else(supernet, x):
    supernet.double().eval()
    for seed, path in enumerate(paths(supernet)):
        fix_widths(supernet, seed)
        h = supernet.stem(x.double())
        layers = [layer for name, layer in supernet.layers().items() if path[name] != SKIP]
        chosen = [choice for choice in path.values() if choice != SKIP]
        for spec, layer, choice in zip(derived(supernet, path).layers, layers, chosen, strict=True):
            block = build_block(spec).double().eval()
            full = layer.candidates[choice].block.state_dict()
            shapes = {name: tensor.shape for name, tensor in block.state_dict().items()}
            block.load_state_dict({n: full[n][tuple(map(slice, s))] for n, s in shapes.items()})
            h = block(h)
        with supernet.on(path):
            torch.testing.assert_close(supernet(x.double())[0], h)


def test_what_is_not_chosen_is_neither_computed_nor_moved(supernet, x):
    ran = []
    blocks = {
        (name, choice): block
        for name, layer in supernet.layers().items()
        for choice, block in layer.candidates.items()
    }
    for pair, block in blocks.items():
        block.register_forward_hook(lambda *_, pair=pair: ran.append(pair))
    for path in paths(supernet):
        ran.clear()
        supernet.zero_grad()
        with supernet.on(path):
            supernet(x)[0].square().mean().backward()
        chosen = [pair for pair in path.items() if pair[1] != SKIP]
        assert ran == chosen
        for pair, block in blocks.items():
            has_gradient = [p.grad is not None for p in block.parameters()]
            assert all(has_gradient) if pair in chosen else not any(has_gradient)


def test_compute_and_memory_do_not_grow_with_the_number_of_candidates(make_space, make_supernet, x):
    """Of calls and of what is kept for the backward pass, counted with 1 to 6 candidates."""
    found = []
    for ops, kernels in (
        (['irb'], [3]),
        (['irb'], [3, 5]),
        (['irb', 'fused_irb'], [3, 5]),
        (['irb', 'fused_irb'], [3, 5, 7]),
    ):
        supernet = make_supernet(make_space(ops=ops, kernels=kernels))
        assert len(supernet.layers()['stage3.layer2'].candidates) == len(ops) * len(kernels)
        calls, kept = [], []
        for module in supernet.modules():
            module.register_forward_hook(lambda module, *_, calls=calls: calls.append(type(module)))

        def pack(tensor, kept=kept):
            kept.append(tensor.shape)
            return tensor

        path = {name: 'irb_k3' for name in supernet.layers() if name.startswith('stage3')}
        with (
            supernet.on(path | {f'stage2.layer{i}': 'irb_k3' for i in (1, 2, 3)}),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            supernet(x)
        found.append((calls, kept))
    assert found[0][0].count(Prunode) == 5
    assert all(one == found[0] for one in found)


# For how long


def test_a_path_is_over_after_its_block_also_by_an_exception(supernet):
    path = paths(supernet, 1)[0]
    with supernet.on(path):
        assert {name: layer.path for name, layer in supernet.layers().items()} == path
    assert {layer.path for layer in supernet.layers().values()} == {None}
    with pytest.raises(RuntimeError, match='on purpose'), supernet.on(path):
        raise RuntimeError('on purpose')
    assert {layer.path for layer in supernet.layers().values()} == {None}


def test_a_path_of_a_layer_that_is_gone_is_none(supernet):
    path = paths(supernet, 1)[0]
    supernet.remove_layer('stage3.layer2')
    with pytest.raises(KeyError), supernet.on(path):
        pass
    assert {layer.path for layer in supernet.layers().values()} == {None}


def test_a_path_inside_of_another_ends_in_it(supernet, x):
    outer, inner = paths(supernet, 2)
    assert outer != inner
    supernet.eval()
    likeliest = supernet(x)[0]
    with supernet.on(outer):
        expected = supernet(x)[0]
        with supernet.on(inner):
            assert not torch.equal(supernet(x)[0], expected)
        assert torch.equal(supernet(x)[0], expected)
        with supernet.on(None):
            assert torch.equal(supernet(x)[0], likeliest)
        assert torch.equal(supernet(x)[0], expected)
    assert torch.equal(supernet(x)[0], likeliest)


def test_without_a_path_it_is_the_likeliest(supernet, x):
    supernet.eval().open_skips()
    supernet.layers()['stage2.layer2'].keep.data.fill_(0.1)
    path = supernet.likeliest_path()
    assert path['stage2.layer2'] == SKIP
    expected = supernet(x)[0]
    with supernet.on(path):
        assert torch.equal(supernet(x)[0], expected)


# What a path costs


def test_a_path_costs_what_the_derived_network_does(supernet, table):
    """Skips cost nothing, whether they are open or not."""
    for seed, path in enumerate(paths(supernet)):
        if seed == 6:
            supernet.open_skips()
        fix_widths(supernet, seed)
        predicted_ms = table.predict_ms(derived(supernet, path))
        assert supernet.path_ms(path) == pytest.approx(predicted_ms)


def test_between_two_widths_it_costs_what_is_expected(supernet):
    for prunode in supernet.prunodes():
        prunode.rule.jump(prunode.widths[0] + 1.0)
    path = supernet.likeliest_path()
    supernet.settle(path)
    assert supernet.path_ms(path) == pytest.approx(supernet.expected_latency_ms().item())


# Settling


def test_a_decision_removes_what_else_a_layer_could_be(supernet, x):
    supernet.open_skips()
    others = {n: left for n, left in supernet.options().items() if n != 'stage3.layer2'}
    supernet.decide('stage3.layer2', 'irb_k3')
    left = supernet.all_options()
    assert left.pop('stage3.layer2') == ['irb_k3']
    assert left == others
    assert supernet.draw_path(random.Random(0), 1.0)['stage3.layer2'] == 'irb_k3'
    assert supernet.layers()['stage3.layer2'].chances() == {'irb_k3': 1.0}
    supernet(x)


def test_a_decision_to_skip_removes_the_layer(supernet):
    supernet.decide('stage3.layer2', SKIP)
    assert 'stage3.layer2' not in supernet.layers()
    with pytest.raises(ValueError, match='stage3.layer1'):
        supernet.decide('stage3.layer1', SKIP)


@pytest.mark.parametrize('sampling', ['hard', 'softmax'])
def test_settled_is_what_is_most_probable(make_supernet, x, sampling):
    supernet = make_supernet(sampling=sampling).eval()
    supernet.open_skips()
    for name, keep in (('stage2.layer2', 0.1), ('stage2.layer3', 0.9)):
        supernet.layers()[name].keep.data.fill_(keep)
    path = supernet.likeliest_path()
    supernet.settle()
    assert supernet.options() == {n: [choice] for n, choice in path.items() if choice != SKIP}
    assert 'stage2.layer2' not in supernet.layers()
    assert not supernet.skip_open
    layer = supernet.layers()['stage2.layer3']
    h = torch.randn(2, 8, 4, 4)
    assert torch.equal(layer(h), layer.candidates[path['stage2.layer3']](h))


def test_any_path_can_be_settled_and_computes_the_same_then(supernet, x):
    supernet.eval()
    path = next(path for path in paths(supernet) if SKIP in path.values())
    with supernet.on(path):
        expected = supernet(x)[0]
    supernet.settle(path)
    assert torch.equal(supernet(x)[0], expected)
    fix_widths(supernet)
    widths = {}
    for name, layer in supernet.layers().items():
        (block,) = layer.candidates.values()
        widths[name] = getattr(block, 'fixed_width', 0)
    assert supernet.derive(widths) == derived(supernet, path)


def test_exact_ties_are_settled_too(make_supernet):
    """As at the start, when no candidate is better than another."""
    supernet = make_supernet()
    for layer in supernet.layers().values():
        for logit in layer.logits.values():
            logit.data.zero_()
    supernet.settle()
    assert all(len(left) == 1 for left in supernet.all_options().values())


# Believing


def test_what_is_believed_comes_in_the_order_of_the_options(supernet):
    supernet.open_skips()
    supernet.layers()['stage2.layer1'].remove('irb_k3')
    generator = torch.Generator().manual_seed(0)
    chances = {
        name: torch.rand(len(left), dtype=torch.float64, generator=generator).softmax(0)
        for name, left in supernet.options().items()
    }
    supernet.believe(chances)
    for name, layer in supernet.layers().items():
        assert list(layer.chances()) == supernet.options()[name]
        assert list(layer.chances().values()) == pytest.approx(chances[name].tolist(), rel=1e-5)


def test_one_chance_too_few_is_refused(supernet):
    """As after a removal that whoever computed the chances does not know of."""
    chances = {n: torch.full((len(o),), 1 / len(o)) for n, o in supernet.options().items()}
    supernet.open_skips()
    with pytest.raises(ValueError):
        supernet.believe(chances)
