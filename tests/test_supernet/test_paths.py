"""Single paths: each is a network that could be derived, and costs what that network does."""

import random
from collections import Counter

import pytest
import torch

from prunet_mm.models.blocks import build_block
from prunet_mm.supernet import Prunode
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.stochastic_layer import SKIP

DRAWS = 600


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, 8)


@pytest.fixture
def supernet(make_supernet, table):
    net = make_supernet(rule=dict(type='width', initial=0.5))
    net.attach_latency(table)
    return net


@pytest.fixture
def with_shortcuts(make_supernet, make_space):
    space = make_space()
    space['stages'][2] = dict(
        width=8,
        stride=2,
        depth=2,
        candidates=[
            dict(op='irb', kernel=3, expansions=[1, 2]),
            dict(op='irb', kernel=5, expansions=[1, 2]),
        ],
        first_candidates=[
            dict(op='irb', kernel=3, expansions=[1, 2]),
            dict(op='shortcut', kernel=1),
        ],
    )
    return make_supernet(space)


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


def frequencies(draw, layer):
    rng = random.Random(0)
    counts = Counter(draw(rng)[layer] for _ in range(DRAWS))
    return {choice: count / DRAWS for choice, count in counts.items()}


def close_to(chances):
    """Frequencies, to four standard deviations of the least certain one."""
    return pytest.approx(chances, abs=4 * (0.25 / DRAWS) ** 0.5)


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


# Drawing


def test_draws_follow_what_is_believed(supernet):
    supernet.open_skips()
    layer = supernet.layers()['stage3.layer2']
    chances = {'irb_k3': 0.55, 'irb_k5': 0.3, SKIP: 0.15}
    layer.believe(chances)
    assert frequencies(supernet.draw_path, 'stage3.layer2') == close_to(chances)


def test_exploration_is_a_share_of_even_draws(supernet):
    supernet.open_skips()
    supernet.layers()['stage3.layer2'].believe({'irb_k3': 0.9, 'irb_k5': 0.09, SKIP: 0.01})
    for exploration, chances in (
        (0.3, {'irb_k3': 0.73, 'irb_k5': 0.163, SKIP: 0.107}),
        (1.0, {'irb_k3': 1 / 3, 'irb_k5': 1 / 3, SKIP: 1 / 3}),
    ):
        found = frequencies(lambda rng, e=exploration: supernet.draw_path(rng, e), 'stage3.layer2')
        assert found == close_to(chances)


def test_the_same_generator_draws_the_same_path(supernet):
    """On all ranks, and after a restart."""
    supernet.open_skips()
    drawn = [supernet.draw_path(random.Random(seed)) for seed in range(10)]
    assert drawn == [supernet.draw_path(random.Random(seed)) for seed in range(10)]
    assert len({tuple(path.items()) for path in drawn}) > 5
    assert supernet.deal(random.Random(1), 3) == supernet.deal(random.Random(1), 3)


def test_skips_that_are_not_open_are_drawn_for_weights_alone(supernet):
    """They have to work without the layer before anyone judges it."""
    assert SKIP not in frequencies(lambda rng: supernet.draw_path(rng, 0.5), 'stage3.layer2')
    even = dict.fromkeys(('irb_k3', 'irb_k5', SKIP), 1 / 3)
    between = frequencies(lambda rng: supernet.deal(rng, 2)[1][0], 'stage3.layer2')
    assert between == close_to(even)
    assert supernet.all_options()['stage3.layer2'] == list(even)
    assert SKIP not in supernet.options()['stage3.layer2']


def test_what_is_dealt_goes_from_the_widest_to_the_narrowest(with_shortcuts):
    """Widths share weights: who trains the ends trains what lies between."""
    networks = with_shortcuts.deal(random.Random(0), 5)
    assert len(networks) == 5
    (_, widest), *between, (_, narrowest) = networks
    assert all(width == prunode.widths[-1] for prunode, width in widest.items())
    assert all(width == prunode.widths[0] for prunode, width in narrowest.items())
    chosen = {w / prunode.widths[-1] for _, widths in between for prunode, w in widths.items()}
    assert len(chosen) > 2
    for path, widths in networks:
        layers = with_shortcuts.layers()
        on_path = [layers[name].candidates[c] for name, c in path.items() if c != SKIP]
        assert set(widths) == {block for block in on_path if isinstance(block, Prunode)}


@pytest.mark.parametrize('count', [2, 3, 5])
def test_choices_are_dealt_fairly_and_among_all_neighbours(with_shortcuts, count):
    """None is trained twice before all are once, and no two of different layers stick together."""
    together = Counter()
    for seed in range(600):
        dealt = [path for path, _ in with_shortcuts.deal(random.Random(seed), count)]
        for name, options in with_shortcuts.all_options().items():
            counts = Counter(path[name] for path in dealt)
            assert max(counts.values()) - min(counts[option] for option in options) <= 1
        together.update((path['stage3.layer1'], path['stage3.layer2']) for path in dealt)
    options = with_shortcuts.all_options()
    pairs = len(options['stage3.layer1']) * len(options['stage3.layer2'])
    assert len(together) == pairs
    assert all(
        n / together.total() == pytest.approx(1 / pairs, abs=0.035) for n in together.values()
    )


def test_widths_are_given_back(supernet):
    prunode = next(iter(supernet.prunodes()))
    start = prunode.pair()
    with at_widths({prunode: prunode.widths[1]}):
        assert prunode.pair() == (prunode.widths[1], prunode.widths[1], None)
    assert prunode.pair() == start


def test_a_layer_that_stays_is_drawn_by_no_one_as_skipped(supernet):
    supernet.decide('stage3.layer2', 'irb_k5')
    for _ in range(2):
        for draw in (supernet.draw_path, lambda rng: supernet.deal(rng, 3)[2][0]):
            assert frequencies(draw, 'stage3.layer2') == {'irb_k5': 1.0}
        supernet.open_skips()


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
