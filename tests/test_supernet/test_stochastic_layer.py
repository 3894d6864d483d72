import math

import pytest
import torch

from prunet_mm.spec import SearchSpace
from prunet_mm.supernet import FixedBlock, Prunode
from prunet_mm.supernet.stochastic_layer import SKIP, StochasticLayer


@pytest.fixture
def make_layer(make_space):
    """Layers by name; 'stage3.layer2' has two candidates, stride 1 and may be skipped."""

    def make(name='stage3.layer2', logits=None, sampling='softmax', **stage3):
        space = SearchSpace.from_dict(make_space(**stage3))
        position = next(p for p in space.positions() if p.name == name)
        layer = StochasticLayer(position).double()
        layer.sampling = sampling
        for value, candidate in zip(logits or [], layer.candidates, strict=bool(logits)):
            layer.logits[candidate].data.fill_(value)
        return layer

    return make


def wide(layer):
    """An input that fits the layer."""
    torch.manual_seed(1)
    at = layer.position
    return torch.randn(3, at.in_channels, at.height, at.width, dtype=torch.float64)


# One choice at a time


@pytest.mark.parametrize('training', [True, False])
def test_a_hard_layer_is_the_choice_that_is_named(make_layer, training):
    layer = make_layer(logits=[2.0, 0.0], sampling='hard').train(training)
    x = wide(layer)
    for name, candidate in layer.candidates.items():
        layer.path = name
        assert torch.equal(layer(x), candidate(x))
    layer.path = SKIP
    assert torch.equal(layer(x), x)


def test_without_a_name_it_is_the_most_probable_choice(make_layer):
    layer = make_layer(logits=[0.0, 1.0], sampling='hard').eval()
    x = wide(layer)
    assert layer.likeliest() == 'irb_k5'
    assert torch.equal(layer(x), layer.candidates['irb_k5'](x))
    layer.skip_open = True
    layer.believe({'irb_k3': 0.3, 'irb_k5': 0.3, SKIP: 0.4})
    assert layer.likeliest() == SKIP
    assert torch.equal(layer(x), x)


def test_of_a_path_a_blend_takes_only_whether_it_is_skipped(make_layer):
    layer = make_layer(logits=[0.3, -0.4]).train()
    x = wide(layer)
    blend = layer(x)
    layer.skip_open = True
    layer.keep.data.fill_(0.5)
    layer.path = 'irb_k3'
    assert torch.equal(layer(x), blend)
    layer.path = SKIP
    assert torch.equal(layer(x), x)


# What there is to choose


def test_the_skip_is_an_option_once_it_is_open_and_until_the_layer_is_settled(make_layer):
    layer = make_layer()
    assert layer.options() == ['irb_k3', 'irb_k5']
    assert layer.options(closed=True) == ['irb_k3', 'irb_k5', SKIP]
    layer.skip_open = True
    assert layer.options() == layer.options(closed=True) == ['irb_k3', 'irb_k5', SKIP]
    layer.keep.data.fill_(0.4)
    layer.close_skip()
    assert layer.options() == layer.options(closed=True) == ['irb_k3', 'irb_k5']
    assert sum(layer.chances().values()) == pytest.approx(1)


def test_a_layer_that_changes_width_or_stride_has_no_skip_to_open(make_layer):
    assert SKIP not in make_layer('stage3.layer1').options(closed=True)


@pytest.mark.parametrize('temperature', [1.0, 0.3])
def test_what_is_believed_are_the_chances(make_layer, temperature):
    layer = make_layer(logits=[0.3, -0.4])
    layer.temperature = temperature
    layer.believe({'irb_k3': 0.9, 'irb_k5': 0.1})
    assert layer.chances() == pytest.approx({'irb_k3': 0.9, 'irb_k5': 0.1})
    assert layer.keep == 1
    layer.skip_open = True
    chances = {'irb_k3': 0.002, 'irb_k5': 0.048, SKIP: 0.95}
    layer.believe(chances)
    assert layer.chances() == pytest.approx(chances)
    assert list(layer.chances()) == layer.options()


def test_every_choice_costs_what_it_does_at_its_present_width(make_layer):
    layer = make_layer()
    first, second = layer.candidates.values()
    first.latency_ms.copy_(torch.arange(1, len(first.widths) + 1))
    second.latency_ms.fill_(4.0)
    first.rule.jump(first.widths[1] + 1.0)  # a quarter of the way to the next
    assert layer.costs_ms() == pytest.approx({'irb_k3': 2.25, 'irb_k5': 4.0})
    layer.skip_open = True
    assert layer.costs_ms()[SKIP] == 0


# Blends


def test_output_is_the_mean_of_the_candidates_weighted_by_their_probabilities(make_layer):
    layer = make_layer(logits=[0.3, -0.4]).eval()
    x = wide(layer)
    p = torch.tensor([0.3, -0.4], dtype=torch.float64).softmax(0)
    a, b = layer.candidates.values()
    torch.testing.assert_close(layer(x), p[0] * a(x) + p[1] * b(x))


def test_candidates_are_prunodes_and_plain_convolutions(make_layer):
    (conv,) = make_layer('stage1.layer1').candidates.values()
    assert isinstance(conv, FixedBlock)
    assert all(isinstance(c, Prunode) for c in make_layer().candidates.values())


def test_temperature_sharpens_the_probabilities(make_layer):
    layer = make_layer(logits=[0.3, -0.4])
    warm = layer.probabilities().max()
    layer.temperature = 0.1
    assert layer.probabilities().max() > 0.999 > warm


# Sampling


def test_gumbel_noise_in_training_only_and_with_the_right_frequencies(make_layer):
    """Nearly one-hot at a low temperature, as often as the softmax of the logits says."""
    layer = make_layer(logits=[1.0, 0.0])
    layer.sampling, layer.temperature = 'gumbel', 1e-6
    x = wide(layer)
    drawn = torch.stack([layer.probabilities(noisy=True)[0] for _ in range(1000)])
    assert drawn.mean().item() == pytest.approx(1 / (1 + math.exp(-1)), abs=0.05)
    assert len({round(layer(x).square().sum().item(), 3) for _ in range(20)}) == 2
    assert len({layer.eval()(x).square().sum().item() for _ in range(20)}) == 1


def test_softmax_sampling_has_no_noise(make_layer):
    layer = make_layer(logits=[1.0, 0.0]).train()
    x = wide(layer)
    assert torch.equal(layer(x), layer(x))


# Pruning blocks


@pytest.fixture
def make_wide_layer(make_layer):
    """Four candidates: irb_k3, irb_k5, fused_irb_k3, fused_irb_k5."""
    return lambda logits: make_layer(logits=logits, ops=['irb', 'fused_irb'])


def test_candidates_below_the_threshold_go_the_least_probable_first(make_wide_layer):
    layer = make_wide_layer([0.0, -3.0, 1.0, -2.0])
    names = list(layer.candidates)
    first = layer.probabilities().tolist()
    removed = layer.prune_below(0.1)
    assert [name for name, _ in removed] == [names[1], names[3]]
    assert removed[0][1] == pytest.approx(first[1])
    assert removed[1][1] == pytest.approx(first[3] / (1 - first[1]))  # renormalised
    assert list(layer.candidates) == [names[0], names[2]]
    assert set(layer.logits) == set(layer.candidates)


def test_renormalised_probabilities_are_tested_again(make_wide_layer):
    """0.05, 0.19, 0.19, 0.57: of those below 0.2 only one has to go."""
    logits = torch.tensor([0.05, 0.19, 0.19, 0.57]).log().tolist()
    assert len(make_wide_layer(logits).prune_below(0.195)) == 1


@pytest.mark.parametrize('logits', [[3.0, 2.9, 0.0, 0.0], [0.0] * 4, [1.0, 1.0, 0.0, 0.0]])
@pytest.mark.parametrize('threshold', [0.9, 1.0, 2.0])
def test_the_most_probable_one_is_never_removed(make_wide_layer, logits, threshold):
    """Also where it is below the threshold itself, and where several tie."""
    layer = make_wide_layer(logits)
    best = layer.best()
    assert len(layer.prune_below(threshold)) == 3
    assert list(layer.candidates) == [best]
    assert layer.probabilities().tolist() == [1.0]


def test_nothing_goes_below_a_threshold_of_zero(make_wide_layer):
    assert make_wide_layer([50.0, 0.0, -50.0, 0.0]).prune_below(0.0) == []


def test_a_single_candidate_needs_no_probability(make_layer):
    layer = make_layer(logits=[1.0, 0.0]).eval()
    x = wide(layer)
    layer.remove('irb_k3')
    layer.logits['irb_k5'].data.fill_(-7.0)
    torch.testing.assert_close(layer(x), layer.candidates['irb_k5'](x))


# The keep coefficient


def test_keep_weighs_the_blocks_against_the_input_once_the_skip_is_open(make_layer):
    layer = make_layer().eval()
    x = wide(layer)
    full = layer(x)
    layer.keep.data.fill_(0.3)
    assert torch.equal(layer(x), full)
    layer.skip_open = True
    torch.testing.assert_close(layer(x), 0.3 * full + 0.7 * x)
    layer.keep.data.fill_(0.0)
    assert torch.equal(layer(x), x)


def test_in_training_the_layer_is_there_or_not_and_keep_gets_a_gradient_either_way(make_layer):
    layer = make_layer()
    x = wide(layer)
    full = layer(x).detach()
    layer.skip_open = True
    layer.keep.data.fill_(0.25)
    torch.manual_seed(0)
    there = 0
    for _ in range(200):
        out = layer(x)
        is_there = not torch.equal(out, x)
        torch.testing.assert_close(out, full if is_there else x)
        there += is_there
        layer.zero_grad()
        out.square().sum().backward()
        assert layer.keep.grad != 0
    assert 30 <= there <= 70  # 50 expected, give or take three standard deviations


def test_a_deterministic_layer_weighs_in_training_mode_too(make_layer):
    layer = make_layer()
    x = wide(layer)
    full = layer(x)
    layer.skip_open = layer.deterministic = True
    layer.keep.data.fill_(0.3)
    torch.testing.assert_close(layer(x), 0.3 * full + 0.7 * x)


def test_keep_gets_a_gradient_from_the_loss_and_from_the_latency(make_layer):
    layer = make_layer(logits=[0.2, 0.0])
    for candidate in layer.candidates.values():
        candidate.latency_ms.fill_(2.0)
    layer.skip_open = True
    layer(wide(layer)).square().sum().backward()
    assert layer.keep.grad != 0
    layer.zero_grad()
    layer.expected_latency_ms().backward()
    assert float(layer.keep.grad) == pytest.approx(2.0)


def test_a_layer_that_changes_width_or_stride_has_no_keep(make_layer):
    assert make_layer('stage3.layer1').keep is None
    assert make_layer('stage1.layer1').keep is None


def test_expected_latency_is_weighted_by_probabilities_and_keep(make_layer):
    layer = make_layer(logits=[0.3, -0.4])
    a, b = layer.candidates.values()
    a.latency_ms.fill_(1.0)
    b.latency_ms.fill_(5.0)
    p = torch.tensor([0.3, -0.4], dtype=torch.float64).softmax(0)
    assert layer.expected_latency_ms().item() == pytest.approx(float(p[0] + 5 * p[1]))
    layer.skip_open = True
    layer.keep.data.fill_(0.5)
    assert layer.expected_latency_ms().item() == pytest.approx(float(p[0] + 5 * p[1]) / 2)
