"""Which paths are drawn, and how often."""

import random
from collections import Counter

import pytest

from prunet_mm.supernet import Prunode
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.stochastic_layer import SKIP

DRAWS = 600


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


def frequencies(draw, layer):
    rng = random.Random(0)
    counts = Counter(draw(rng)[layer] for _ in range(DRAWS))
    return {choice: count / DRAWS for choice, count in counts.items()}


def close_to(chances):
    """Frequencies, to four standard deviations of the least certain one."""
    return pytest.approx(chances, abs=4 * (0.25 / DRAWS) ** 0.5)


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
