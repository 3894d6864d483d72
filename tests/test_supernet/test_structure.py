"""What has been pruned stays pruned, through every way of loading a checkpoint."""

import io
import json

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict as mmengine_load

from prunet_mm.errors import CheckpointError
from prunet_mm.supernet.stochastic_layer import SKIP
from prunet_mm.supernet.structure import read_structure, write_structure


def torch_load(supernet, state):
    supernet.load_state_dict(state)


loaders = pytest.mark.parametrize('load', [torch_load, mmengine_load], ids=['torch', 'mmengine'])
rules = pytest.mark.parametrize('rule', ['width', 'logits'])


@pytest.fixture
def make_pruned(make_supernet):
    """A SuperNet in the middle of a search: blocks and a layer gone, pairs moved, skips open."""

    def make(rule='width'):
        supernet = make_supernet(rule=dict(type=rule))
        supernet.set_temperature(0.7)
        supernet.set_gap(0.25)
        for i, prunode in enumerate(supernet.prunodes()):
            prunode.rule.jump(6.0 + i)
        supernet.layers()['stage2.layer1'].logits['irb_k3'].data.fill_(-5.0)
        supernet.layers()['stage3.layer1'].logits['irb_k5'].data.fill_(-5.0)
        assert len(supernet.prune_below(0.1)) == 2
        supernet.remove_layer('stage2.layer2')
        supernet.open_skips()
        supernet.layers()['stage3.layer2'].keep.data.fill_(0.4)
        return supernet

    return make


def through_a_file(supernet):
    """Its state dict as it comes back from disk, loaded without executing anything."""
    file = io.BytesIO()
    torch.save(supernet.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@loaders
@rules
def test_a_checkpoint_alone_restores_the_pruned_supernet(make_pruned, make_supernet, load, rule):
    pruned = make_pruned(rule)
    fresh = make_supernet(rule=dict(type=rule))
    load(fresh, through_a_file(pruned))
    assert {n: list(c.candidates) for n, c in fresh.layers().items()} == {
        n: list(c.candidates) for n, c in pruned.layers().items()
    }
    assert 'stage2.layer2' not in fresh.layers()
    assert fresh.skip_open
    assert [p.pair() for p in fresh.prunodes()] == [p.pair() for p in pruned.prunodes()]
    assert fresh.derive() == pruned.derive()
    assert fresh.expected_latency_ms() == pruned.expected_latency_ms()
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(fresh.eval()(x)[0], pruned.eval()(x)[0])
    again, state = fresh.state_dict(), pruned.state_dict()
    assert list(again) == list(state)
    assert all(torch.equal(again[key], state[key]) for key in state)


@loaders
@pytest.mark.parametrize(('sampling', 'of_layers'), [('softmax', 0.3), ('hard', 1.0)])
def test_settled_choices_and_temperature_are_restored(make_supernet, load, sampling, of_layers):
    """Probabilities of hard paths are believed as they are, and know no temperature."""
    options = dict(rule=dict(type='logits'), sampling=sampling)
    saved, fresh = make_supernet(**options), make_supernet(**options)
    saved.settle()
    saved.set_temperature(0.3)
    load(fresh, through_a_file(saved))
    assert fresh.all_options() == saved.all_options()
    assert all(len(left) == 1 for left in fresh.all_options().values())
    assert not fresh.skip_open
    assert {layer.temperature for layer in fresh.layers().values()} == {of_layers}
    assert {prunode.rule.temperature for prunode in fresh.prunodes()} == {0.3}


@loaders
def test_a_layer_that_stays_is_never_skipped_again(make_supernet, load):
    saved, fresh = make_supernet(), make_supernet()
    saved.decide('stage3.layer2', 'irb_k5')
    load(fresh, through_a_file(saved))
    fresh.open_skips()
    assert fresh.layers()['stage3.layer2'].options(closed=True) == ['irb_k5']
    assert SKIP in fresh.layers()['stage2.layer2'].options()


@loaders
def test_it_is_restored_inside_a_larger_model(make_pruned, make_supernet, load):
    pruned = torch.nn.Sequential(make_pruned(), torch.nn.Identity())
    fresh = torch.nn.Sequential(make_supernet(), torch.nn.Identity())
    load(fresh, pruned.state_dict())
    assert 'stage2.layer2' not in fresh[0].layers()


def test_what_is_removed_is_gone_from_the_state_dict(make_supernet):
    supernet = make_supernet()
    before = set(supernet.state_dict())
    supernet.layers()['stage3.layer1'].remove('irb_k5')
    supernet.remove_layer('stage2.layer3')
    gone = before - set(supernet.state_dict())
    assert gone == {
        key
        for key in before
        if key.startswith(('stage3.layer1.candidates.irb_k5.', 'stage2.layer3.'))
        or key == 'stage3.layer1.logits.irb_k5'
    }
    assert not gone & {name for name, _ in supernet.named_parameters()}


@loaders
def test_a_further_pruned_checkpoint_prunes_further(make_pruned, make_supernet, load):
    """One SuperNet may load checkpoints one after another, as long as less and less is left."""
    fresh, pruned = make_supernet(), make_pruned()
    load(fresh, pruned.state_dict())
    pruned.remove_layer('stage1.layer2')
    load(fresh, pruned.state_dict())
    assert set(fresh.layers()) == set(pruned.layers())


@loaders
@pytest.mark.parametrize('what', ['candidate', 'layer'])
def test_what_was_pruned_never_comes_back(make_supernet, load, what):
    """A checkpoint from before the removal is refused, and nothing is loaded from it."""
    supernet = make_supernet()
    earlier = make_supernet().state_dict()
    if what == 'candidate':
        supernet.layers()['stage3.layer1'].remove('irb_k5')
    else:
        supernet.remove_layer('stage3.layer2')
    weight = supernet.stem[0].conv.conv.weight.clone()
    with pytest.raises(CheckpointError, match=r'stage3.layer[12]'):
        load(supernet, earlier)
    assert torch.equal(supernet.stem[0].conv.conv.weight, weight)


@loaders
def test_a_checkpoint_of_another_space_or_rule_is_refused(make_space, make_supernet, load):
    supernet = make_supernet()
    for other in (
        make_supernet(make_space(max_expansion=8)),
        make_supernet(make_space(kernels=[3])),
        make_supernet(rule=dict(type='logits')),
    ):
        with pytest.raises(CheckpointError, match='search space or walking rule'):
            load(supernet, other.state_dict())


@loaders
def test_options_of_the_rule_may_change_between_checkpoint_and_config(make_supernet, load):
    """They are no state; a search may go on with another margin."""
    saved = make_supernet(rule=dict(type='logits'))
    fresh = make_supernet(rule=dict(type='logits', margin=0.25, interval=12))
    saved.remove_layer('stage3.layer2')
    load(fresh, saved.state_dict())
    assert 'stage3.layer2' not in fresh.layers()
    assert next(fresh.prunodes()).rule.margin == 0.25


def test_a_damaged_record_is_refused_in_a_sentence(make_supernet):
    supernet = make_supernet()
    state = supernet.state_dict()
    for damaged in (state['structure'][:-5], torch.tensor([255, 0], dtype=torch.uint8)):
        with pytest.raises(CheckpointError, match='damaged'):
            make_supernet().load_state_dict({**state, 'structure': damaged})


@loaders
def test_a_record_of_an_earlier_version_is_refused_in_a_sentence(make_supernet, load):
    state = make_supernet().state_dict()
    record = read_structure(state['structure'])
    del record['stays']
    with pytest.raises(CheckpointError, match='earlier version'):
        load(make_supernet(), {**state, 'structure': write_structure(record)})


def test_the_record_follows_every_change(make_supernet):
    supernet = make_supernet()

    def recorded():
        return read_structure(supernet.state_dict()['structure'])

    assert set(recorded()['layers']) == {p.name for p in supernet.space.positions()}
    skippable = [p.name for p in supernet.space.positions() if p.skippable]
    firsts = [p.name for p in supernet.space.positions() if not p.skippable]
    assert (recorded()['skip_open'], recorded()['stays']) == ([], firsts)
    supernet.open_skips()
    assert (recorded()['skip_open'], recorded()['stays']) == (skippable, firsts)
    supernet.remove_layer('stage2.layer3')
    assert 'stage2.layer3' not in recorded()['layers']
    supernet.decide('stage2.layer2', 'irb_k3')
    assert 'stage2.layer2' not in recorded()['skip_open']
    assert 'stage2.layer2' in recorded()['stays']
    supernet.settle()
    assert recorded()['skip_open'] == []
    assert recorded()['stays'] == list(supernet.layers())
    assert all(len(candidates) == 1 for candidates in recorded()['layers'].values())
    assert recorded()['space'] == json.loads(json.dumps(supernet.space.to_dict()))


@rules
def test_a_supernet_is_built_from_a_state_dict_alone(make_pruned, rule):
    pruned = make_pruned(rule)
    state = {f'backbone.{key}': value for key, value in through_a_file(pruned).items()}
    rebuilt = type(pruned).from_state_dict(state, 'backbone.')
    assert rebuilt.derive() == pruned.derive()
    for key, value in pruned.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[key], value), key


@pytest.mark.parametrize('sampling', ['hard', 'softmax', 'gumbel'])
def test_it_then_samples_as_it_did(make_supernet, sampling):
    supernet = make_supernet(sampling=sampling)
    rebuilt = type(supernet).from_state_dict(through_a_file(supernet))
    x = torch.randn(4, 3, 8, 8)
    assert rebuilt.sampling == sampling
    assert torch.equal(rebuilt.eval()(x)[0], supernet.eval()(x)[0])


def test_a_state_dict_without_a_supernet_is_refused(make_supernet):
    with pytest.raises(CheckpointError, match='no SuperNet'):
        type(make_supernet()).from_state_dict({'conv.weight': torch.zeros(1)})
