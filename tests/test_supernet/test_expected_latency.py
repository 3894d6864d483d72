import itertools
import random

import pytest
import torch

from prunet_mm.errors import LatencyTableError
from prunet_mm.supernet import Prunode


@pytest.fixture
def supernet(make_supernet, table):
    net = make_supernet()
    net.attach_latency(table)
    return net


def test_every_candidate_gets_the_latencies_of_its_own_blocks(supernet, table):
    for position in supernet.space.positions():
        layer = supernet.layers()[position.name]
        for candidate in position.candidates:
            for i, width in enumerate(candidate.widths or (0,)):
                spec = position.layer(candidate, width)
                key = spec.block_key(position.height, position.width)
                found = float(layer.candidates[candidate.name].latency_ms[i])
                assert found == pytest.approx(table.block_ms(key))


def settle(supernet, rng):
    """Make it a single network, chosen at random."""
    for name, layer in list(supernet.layers().items()):
        if layer.position.skippable and rng.random() < 0.4:
            supernet.remove_layer(name)
            continue
        for candidate in rng.sample(list(layer.candidates), len(layer.candidates) - 1):
            layer.remove(candidate)
        (block,) = layer.candidates.values()
        if isinstance(block, Prunode):
            block.fixed_width = rng.choice(block.widths)


def test_of_a_single_network_it_is_the_table_s_prediction(make_supernet, table):
    """Including stem, tail and the network's overhead."""
    for seed in range(8):
        supernet = make_supernet()
        supernet.attach_latency(table)
        settle(supernet, random.Random(seed))
        predicted = table.predict_ms(supernet.derive())
        assert supernet.expected_latency_ms().item() == pytest.approx(predicted, rel=1e-6)


def test_it_is_the_mean_over_all_networks_weighted_by_their_probabilities(
    make_space, make_supernet, table
):
    """Independent choices of candidate, of the width in the pair, and of keeping the layer."""
    space = make_space()
    space['stages'] = [space['stages'][0], dict(space['stages'][2], depth=2)]
    supernet = make_supernet(space)
    supernet.attach_latency(table)
    supernet.open_skips()
    rng = random.Random(0)
    options = []
    for layer in supernet.layers().values():
        keep = 1.0
        if layer.keep is not None:
            keep = rng.uniform(0.2, 0.9)
            layer.keep.data.fill_(keep)
        at, choices = layer.position, [(1 - keep, 0.0)]
        chances = layer.probabilities().tolist()
        for candidate, chance in zip(at.candidates, chances, strict=True):
            block, widths = layer.candidates[candidate.name], [(1.0, 0)]
            if isinstance(block, Prunode):
                block.rule.jump(rng.uniform(block.widths[0], block.widths[-1]))
                lo, hi, r = block.pair()
                widths = [(1 - r.item(), lo), (r.item(), hi)]
            for weight, width in widths:
                key = at.layer(candidate, width).block_key(at.height, at.width)
                choices.append((keep * chance * weight, table.block_ms(key)))
        options.append(choices)
    mean_ms = total = 0.0
    for network in itertools.product(*options):
        probability = torch.tensor([p for p, _ in network], dtype=torch.float64).prod().item()
        mean_ms += probability * (supernet.fixed_ms + sum(ms for _, ms in network))
        total += probability
    assert total == pytest.approx(1)
    assert supernet.expected_latency_ms().item() == pytest.approx(mean_ms)


@pytest.mark.parametrize('rule', ['width', 'logits'])
def test_every_architecture_parameter_gets_a_gradient(make_supernet, table, rule):
    supernet = make_supernet(rule=dict(type=rule, initial=0.5))
    supernet.attach_latency(table)
    supernet.set_gap(0.5)  # several steps of the table, so that no pair lies on a plateau
    supernet.open_skips()
    supernet.expected_latency_ms().backward()
    groups = supernet.architecture_parameters()
    only = [layer.logits for layer in supernet.layers().values() if len(layer.logits) == 1]
    alone = {id(logit) for logits in only for logit in logits.values()}
    for parameter in itertools.chain(*groups.values()):
        assert parameter.grad.isfinite().all()
        assert (parameter.grad.count_nonzero() == 0) == (id(parameter) in alone)
    weights = set(supernet.parameters()) - set(itertools.chain(*groups.values()))
    assert all(weight.grad is None for weight in weights)


def test_it_has_no_noise(make_supernet, table):
    supernet = make_supernet(sampling='gumbel', rule=dict(type='logits')).train()
    supernet.attach_latency(table)
    assert len({supernet.expected_latency_ms().item() for _ in range(5)}) == 1


def test_the_fastest_network_left_is_what_the_budget_is_checked_against(supernet, table):
    smallest = table.predict_ms(supernet.space.smallest())
    assert supernet.fastest_ms() == pytest.approx(smallest, rel=0.05)
    rng = random.Random(0)
    drawn = [table.predict_ms(supernet.space.random(rng)) for _ in range(200)]
    assert supernet.fastest_ms() <= min(drawn)


def test_the_slowest_network_is_found_by_latency_not_by_macs(supernet, table):
    """With the most MACs one may well be faster, and budgets between the two are met."""
    steps_ms, widest = table.block_ms, max(key.hidden for key in supernet.space.block_keys())
    table.block_ms = lambda key: steps_ms(key) / (100 if key.hidden == widest else 1)
    supernet.attach_latency(table)
    slowest_ms = table.predict_ms(supernet.space.largest(table.block_ms))
    assert supernet.slowest_ms() == pytest.approx(slowest_ms)
    assert slowest_ms > table.predict_ms(supernet.space.largest())
    rng = random.Random(0)
    drawn = [table.predict_ms(supernet.space.random(rng)) for _ in range(200)]
    assert supernet.slowest_ms() >= max(drawn)


def test_what_is_reachable_holds_every_layer_until_the_skips_open(supernet):
    def pressed_ms():
        """E[lat] with everything that the search moves pushed to where it costs least."""
        for layer in supernet.layers().values():
            costs = {name: float(c.latency_ms.min()) for name, c in layer.candidates.items()}
            for name, logit in layer.logits.items():
                logit.data.fill_(50.0 if name == min(costs, key=costs.get) else -50.0)
            if layer.keep is not None:
                layer.keep.data.zero_()
        for prunode in supernet.prunodes():
            prunode.rule.jump(prunode.widths[0])
        return supernet.expected_latency_ms().item()

    assert supernet.reachable_ms() == pytest.approx(pressed_ms())
    assert supernet.reachable_ms() > supernet.fastest_ms()
    supernet.open_skips()
    assert supernet.reachable_ms() == pytest.approx(pressed_ms())
    assert supernet.reachable_ms() == supernet.fastest_ms()


def test_a_layer_that_is_settled_to_stay_is_in_the_fastest_network(supernet):
    before = supernet.fastest_ms()
    supernet.decide('stage3.layer2', 'irb_k5')
    cost_ms = float(supernet.layers()['stage3.layer2'].candidates['irb_k5'].latency_ms.min())
    assert supernet.fastest_ms() == pytest.approx(before + cost_ms)
    supernet.open_skips()
    assert supernet.reachable_ms() == supernet.fastest_ms()


def test_latencies_can_be_attached_after_pruning(make_supernet, table):
    """As a resumed search does, and one that derives from a checkpoint."""
    early, late = make_supernet(), make_supernet()
    late.load_state_dict(early.state_dict())
    early.attach_latency(table)
    for supernet in (early, late):
        supernet.layers()['stage3.layer1'].remove('irb_k5')
        supernet.remove_layer('stage2.layer3')
    late.attach_latency(table)
    assert late.expected_latency_ms() == early.expected_latency_ms()


def test_a_missing_block_is_an_error_at_once(make_supernet):
    class Empty:
        def require(self, keys):
            raise LatencyTableError(f'no latency for {len(list(keys))} blocks')

    with pytest.raises(LatencyTableError, match='no latency for'):
        make_supernet().attach_latency(Empty())


def cheapest_first(supernet):
    """By layer, the candidates by their least latency."""
    return {
        name: sorted(layer.candidates, key=layer.narrowest_ms().get)
        for name, layer in supernet.layers().items()
    }


@pytest.mark.parametrize('skips', [False, True])
def test_no_candidate_goes_that_the_budget_needs(supernet, skips):
    """However improbable it is, one that keeps the cheapest network within the budget stays."""
    if skips:
        supernet.open_skips()
    order = cheapest_first(supernet)
    for name, layer in supernet.layers().items():
        for place, candidate in enumerate(order[name]):
            layer.logits[candidate].data.fill_(10.0 * place)  # the dearest is the likeliest
    budget_ms = supernet.reachable_ms()
    supernet.prune_below(1.0, budget_ms=budget_ms)
    assert supernet.reachable_ms() == budget_ms
    for name, layer in supernet.layers().items():
        kept = {order[name][-1]} | ({order[name][0]} if not layer.skip_open else set())
        assert set(layer.candidates) == kept
    supernet.prune_below(1.0)
    assert all(len(layer.candidates) == 1 for layer in supernet.layers().values())


def test_of_the_candidates_that_a_budget_needs_only_so_many_are_spared(supernet):
    order = cheapest_first(supernet)
    for name, layer in supernet.layers().items():
        for place, candidate in enumerate(order[name]):
            layer.logits[candidate].data.fill_(10.0 * place)
    budget_ms = supernet.reachable_ms() * 1.2
    removed = supernet.prune_below(1.0, budget_ms=budget_ms)
    assert supernet.reachable_ms() <= budget_ms
    assert any(candidate == order[name][0] for name, candidate, _ in removed)


def test_before_the_skips_open_a_budget_below_what_is_reachable_spares_the_cheapest(supernet):
    order = cheapest_first(supernet)
    for name, layer in supernet.layers().items():
        layer.logits[order[name][-1]].data.fill_(50.0)
    before = supernet.reachable_ms()
    supernet.prune_below(1.0, budget_ms=supernet.fastest_ms())
    assert supernet.reachable_ms() == before
