import random

import pytest
import torch
from mmpretrain.registry import MODELS

from prunet_mm.errors import ConfigError, SpecError
from prunet_mm.supernet import Prunode, SuperNet
from prunet_mm.supernet.stochastic_layer import SKIP


@pytest.fixture
def x():
    return torch.randn(6, 3, 8, 8)


def test_it_is_built_by_name_and_returns_the_stages_asked_for(make_space, x):
    supernet = MODELS.build(dict(type='SuperNet', space=make_space(), out_indices=(1, 2, 3)))
    assert [tuple(out.shape) for out in supernet(x)] == [(6, 4, 8, 8), (6, 8, 4, 4), (6, 8, 2, 2)]
    (last,) = SuperNet(make_space())(x)
    assert last.shape == (6, 8, 2, 2)


def test_it_holds_every_candidate_of_every_position(make_supernet):
    supernet = make_supernet()
    found = {name: list(layer.candidates) for name, layer in supernet.layers().items()}
    positions = supernet.space.positions()
    assert found == {p.name: [c.name for c in p.candidates] for p in positions}
    assert len(list(supernet.prunodes())) == 3 * 2 + 2 * 2


def test_architecture_parameters_are_those_of_widths_logits_and_keep(make_supernet):
    for rule, widths in (('width', 10), ('logits', 10)):
        groups = make_supernet(rule=dict(type=rule)).architecture_parameters()
        assert {name: len(group) for name, group in groups.items()} == dict(
            widths=widths, logits=2 + 6 + 4, keep=4
        )
        assert len({id(p) for group in groups.values() for p in group}) == 16 + widths


def test_searched_are_widths_only_while_they_walk_and_keeps_only_with_open_skips(make_supernet):
    supernet = make_supernet(sampling='softmax')
    groups = {k: {id(p) for p in v} for k, v in supernet.architecture_parameters().items()}

    def searched():
        return {id(p) for p in supernet.searched_parameters()}

    assert searched() == groups['logits']
    supernet.walking = True
    assert searched() == groups['logits'] | groups['widths']
    supernet.open_skips()
    assert searched() == groups['logits'] | groups['widths'] | groups['keep']
    supernet.settle()
    assert not searched() & groups['keep']


def test_of_hard_paths_a_gradient_moves_widths_alone(make_supernet):
    """What is chosen follows from scores."""
    supernet = make_supernet()
    supernet.open_skips()
    assert supernet.searched_parameters() == []
    assert not supernet.widths_move
    supernet.walking = True
    widths = {id(p) for p in supernet.architecture_parameters()['widths']}
    assert {id(p) for p in supernet.searched_parameters()} == widths
    assert supernet.widths_move


def test_without_a_prunode_that_has_several_widths_no_width_moves(make_space, make_supernet):
    supernet = make_supernet(dict(make_space(), stages=make_space()['stages'][:1]))
    supernet.walking = True
    assert not supernet.widths_move


# What it becomes


def test_it_derives_networks_of_its_space_and_nothing_else(make_supernet):
    for seed in range(10):
        torch.manual_seed(seed)
        rng = random.Random(seed)
        supernet = make_supernet()
        for prunode in supernet.prunodes():
            prunode.rule.jump(rng.uniform(prunode.widths[0], prunode.widths[-1]))
        for name in ('stage1.layer2', 'stage2.layer2', 'stage2.layer3', 'stage3.layer2'):
            if rng.random() < 0.5:
                supernet.remove_layer(name)
        spec = supernet.derive(name='mine', provenance=dict(budget_ms=1.0))
        assert supernet.space.contains(spec)
        assert (spec.name, spec.provenance) == ('mine', dict(budget_ms=1.0))
        assert len(spec.layers) == len(supernet.layers())


def test_it_derives_the_most_probable_candidates_at_their_nearest_widths(make_supernet):
    supernet = make_supernet()
    layer = supernet.layers()['stage3.layer1']
    layer.logits['irb_k5'].data.fill_(9.0)
    layer.candidates['irb_k5'].rule.jump(21.0)
    derived = supernet.derive().layers[5]
    assert (derived.op, derived.kernel, derived.hidden) == ('irb', 5, 20)
    assert ('stage3.layer1', 'irb_k5', 20, 21.0) in supernet.choices()
    assert supernet.derive(widths={'stage3.layer1': 8}).layers[5].hidden == 8


# Layers


def test_a_removed_layer_passes_its_input_on(make_supernet, x):
    supernet = make_supernet(out_indices=(1, 3)).eval()
    supernet.remove_layer('stage1.layer2')
    first = supernet.layers()['stage1.layer1']
    torch.testing.assert_close(supernet(x)[0], first(supernet.stem(x)))


def test_the_first_layer_of_a_stage_cannot_be_removed(make_supernet):
    with pytest.raises(ValueError, match='stage2.layer1'):
        make_supernet().remove_layer('stage2.layer1')


def test_keep_coefficients_stay_above_zero_and_at_most_one(make_supernet):
    supernet = make_supernet()
    keeps = supernet.architecture_parameters()['keep']
    for keep, value in zip(keeps, [-0.5, 0.4, 1.7, 0.0], strict=True):
        keep.data.fill_(value)
    supernet.clamp_keeps()
    assert [round(float(keep.detach()), 3) for keep in keeps] == [0.001, 0.4, 1.0, 0.001]


@pytest.mark.parametrize('threshold', [0.5, 0.1])
def test_keep_coefficients_can_reach_their_threshold(make_supernet, threshold):
    """With the default optimiser of a search, pushed by a latency that is too high."""
    supernet = make_supernet()
    supernet.open_skips()
    for module in supernet.modules():
        if hasattr(module, 'latency_ms'):
            module.latency_ms.fill_(1.0)
    keeps = supernet.architecture_parameters()['keep']
    optimizer = torch.optim.Adam(keeps, lr=0.02, betas=(0.5, 0.95))
    for _ in range(60):
        optimizer.zero_grad()
        supernet.expected_latency_ms().backward()
        optimizer.step()
        supernet.clamp_keeps()
    assert all(keep < threshold for keep in keeps)


# Memory and precision


@pytest.mark.parametrize('sampling', ['hard', 'softmax', 'gumbel'])
@pytest.mark.parametrize('rule', ['width', 'logits'])
def test_activation_checkpointing_changes_nothing(make_space, make_supernet, x, sampling, rule):
    nets = [
        make_supernet(sampling=sampling, rule=dict(type=rule), out_indices=(2, 3), with_cp=with_cp)
        for with_cp in (False, True)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    outs = []
    for net in nets:
        net.train().open_skips()
        torch.manual_seed(3)
        outs.append(net(x))
        sum(out.square().mean() for out in outs[-1]).backward()
    plain, saving = nets
    for a, b in zip(*outs, strict=True):
        torch.testing.assert_close(a, b)
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)  # statistics are recorded once, not twice


@pytest.mark.parametrize('sampling', ['hard', 'softmax'])
def test_what_is_computed_again_is_the_path_that_was_run(make_supernet, x, sampling):
    """Several paths are judged before one backward pass through all of them."""
    nets = [make_supernet(sampling=sampling, with_cp=with_cp) for with_cp in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    every = nets[0].all_options()
    rngs = [random.Random(seed) for seed in range(3)]
    paths = [{name: rng.choice(choices) for name, choices in every.items()} for rng in rngs]
    for net in nets:
        losses = []
        for path in paths:
            with net.train().on(path):
                losses.append(net(x)[0].square().mean())
        sum(losses).backward()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_activation_checkpointing_saves_memory(make_supernet, x):
    def kept(net):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(x)
        return sum(sizes)

    plain, saving = (make_supernet(sampling='softmax', with_cp=cp) for cp in (False, True))
    assert kept(saving) < kept(plain) / 3


@pytest.mark.parametrize('with_cp', [False, True])
def test_it_trains_under_autocast(make_supernet, x, with_cp):
    supernet = make_supernet(sampling='softmax', with_cp=with_cp).train()
    supernet.open_skips()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (out,) = supernet(x)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    gradients = [p.grad for p in supernet.parameters()]
    assert sum(g is not None for g in gradients) == len(gradients) - 2  # layers with one candidate
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients if g is not None)
    with torch.no_grad():
        torch.testing.assert_close(out.float(), supernet(x)[0], rtol=0.2, atol=0.2)


# Bad options


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(rule=dict(type='widht')), ['backbone.rule.type', 'widht', 'logits']),
        (dict(rule=dict(type='logits', marign=0.1)), ['backbone.rule', 'marign', 'margin']),
        (dict(sampling='argmax'), ['backbone.sampling', 'argmax', 'gumbel']),
        (dict(norm_cfg=dict(type='GN', num_groups=4)), ['backbone.norm_cfg', 'GN', 'BN']),
        (dict(norm_cfg=dict(type='BN', eps=0.1)), ['backbone.norm_cfg', '0.1', '0.001']),
        (dict(out_indices=(0,)), ['backbone.out_indices', '(0,)', '1 to 3']),
        (dict(out_indices=(4,)), ['backbone.out_indices', '(4,)', '1 to 3']),
        (dict(out_indices=(1, 2)), ['backbone.out_indices', '(1, 2)', 'on to stage 3']),
    ],
)
def test_bad_options_are_refused_in_a_sentence(make_space, options, words):
    with pytest.raises(ConfigError) as error:
        SuperNet(make_space(), **options)
    assert all(word in str(error.value) for word in words)


def test_a_bad_rule_is_refused_even_where_no_layer_has_widths(make_space):
    space = dict(make_space(), stages=make_space()['stages'][:1])
    assert not any(isinstance(m, Prunode) for m in SuperNet(space).modules())
    with pytest.raises(ConfigError):
        SuperNet(space, rule=dict(type='widht'))


def test_an_impossible_space_is_refused(make_space):
    with pytest.raises(SpecError, match='max_expansion'):
        SuperNet(make_space(granularity=64))


def test_a_decision_under_way_is_mixed_with_what_is_believed_and_survives_a_restart(make_supernet):
    supernet = make_supernet()
    supernet.open_skips()
    believed = {
        name: torch.full((len(options),), 1 / len(options), dtype=torch.float64)
        for name, options in supernet.options().items()
    }
    supernet.believe(believed)
    layer = next(name for name, options in supernet.options().items() if SKIP in options)
    count = len(supernet.options()[layer])
    supernet.lean(dict(layer=layer, choice=SKIP), 0.5)
    supernet.lean(dict(layer=layer, choice=SKIP), 0.5)
    expected = 0.25 / count + 0.75
    assert supernet.layers()[layer].chances()[SKIP] == pytest.approx(expected)
    again = SuperNet.from_state_dict(supernet.state_dict())
    for one in (supernet, again):
        one.believe(believed)  # the scores of the next step change nothing of it
        assert one.layers()[layer].chances()[SKIP] == pytest.approx(expected)
        assert one.leaning == {layer: SKIP}
    again.decide(layer, SKIP)
    assert again.leaning == {} and layer not in again.layers()
