"""A derived network computes what the SuperNet computes on its path."""

import copy
import random

import pytest
import torch
from mmengine.model import Sequential
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import ImageClassifier

from prunet_mm.engine.checkpoint import use_safe_loading
from prunet_mm.engine.explain import explain
from prunet_mm.errors import CheckpointError, ConfigError
from prunet_mm.models import PRUNet
from prunet_mm.supernet import SuperNet, inherit_weights
from prunet_mm.supernet.stochastic_layer import SKIP

PREFIX = 'architecture.backbone.'


@pytest.fixture
def x():
    return torch.randn(6, 3, 8, 8)


@pytest.fixture
def save(tmp_path):
    """Write the state dict of a model as a search does; returns the path."""

    def write(model, prefix=PREFIX):
        path = tmp_path / 'searched.pth'
        torch.save(dict(state_dict={prefix + k: v for k, v in model.state_dict().items()}), path)
        return str(path)

    return write


def settle(supernet, seed=0):
    """Restrict a SuperNet to its best candidates at random hidden widths; return that network."""
    rng = random.Random(seed)
    supernet.settle()
    widths = {}
    for name, layer in supernet.layers().items():
        (block,) = layer.candidates.values()
        if hasattr(block, 'widths'):
            widths[name] = block.fixed_width = rng.choice(block.widths[:-1])
    return supernet.derive(widths=widths)


def inherited(spec, checkpoint, **options):
    init_cfg = dict(type='SuperNet', checkpoint=checkpoint)
    network = PRUNet(spec.to_dict(), out_indices=(1, 2, 3), init_cfg=init_cfg, **options)
    network.init_weights()
    return network.eval()


def same_outputs(network, supernet, x):
    supernet.out_indices = (1, 2, 3)
    with torch.no_grad():
        for found, expected in zip(network(x), supernet.eval()(x), strict=True):
            scale = expected.abs().max()
            torch.testing.assert_close(found / scale, expected / scale, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('act', ['relu', 'swish'])
@pytest.mark.parametrize('removed', [(), ('stage1.layer2', 'stage2.layer2')])
def test_it_computes_what_the_supernet_does(make_supernet, make_space, save, x, act, removed):
    """Every op, SE, kernels of 3 and 5, and hidden widths that are not the Prunodes' own."""
    space = make_space(act=act, ops=['irb', 'fused_irb'])
    space['stages'][1]['act'] = act
    supernet = make_supernet(space)
    layers = supernet.layers()
    for name, best in [
        ('stage2.layer1', 'fused_irb_k3'),
        ('stage2.layer3', 'irb_k3'),
        ('stage3.layer1', 'irb_k5'),
        ('stage3.layer2', 'fused_irb_k3'),
    ]:
        layers[name].logits[best].data.fill_(3.0)
    for name in removed:
        supernet.remove_layer(name)
    spec = settle(supernet)
    assert {'conv', 'irb', 'fused_irb'} == {layer.op for layer in spec.layers}
    walked = [prunode.rule.expected() for prunode in supernet.prunodes()]
    assert any(w != one.hidden for w, one in zip(walked, spec.layers[-len(walked) :], strict=True))
    same_outputs(inherited(spec, save(supernet)), supernet, x)


def test_options_that_add_no_weights_do_not_matter(make_supernet, save, x):
    supernet = make_supernet()
    spec = settle(supernet)
    options = dict(frozen_stages=1, drop_path_rate=0.2, with_cp=True, norm_eval=True)
    same_outputs(inherited(spec, save(supernet), **options), supernet, x)


def test_image_size_and_classifier_of_the_network_may_be_others(make_supernet, save):
    supernet = make_supernet()
    spec = settle(supernet).model_copy(update=dict(resolution=16, tail=None))
    same_outputs(inherited(spec, save(supernet)), supernet, torch.randn(2, 3, 16, 16))


# Which layer a layer comes from


@pytest.fixture
def unpruned(make_supernet):
    """A SuperNet that still has all, open skips, and an opinion on layers and candidates."""
    supernet = make_supernet()
    supernet.open_skips()
    for number, layer in enumerate(supernet.layers().values()):
        if layer.keep is not None:
            layer.keep.data.fill_(0.9 - 0.02 * number)
    return supernet


@pytest.mark.parametrize('weak', ['stage2.layer2', 'stage2.layer3'])
def test_before_pruning_the_most_probable_layers_are_taken(unpruned, save, x, weak):
    unpruned.layers()[weak].keep.data.fill_(0.1)
    pruned = copy.deepcopy(unpruned)
    pruned.remove_layer(weak)
    for name in ('stage2.layer1', 'stage2.layer2', 'stage2.layer3'):
        for supernet in (unpruned, pruned):
            if name in supernet.layers():
                supernet.layers()[name].logits['irb_k3'].data.fill_(1.0)
    spec = settle(pruned)
    same_outputs(inherited(spec, save(unpruned)), pruned, x)


def test_the_candidates_probability_decides_as_well(unpruned):
    layers = unpruned.layers()
    for name, logit in (('stage2.layer2', -2.0), ('stage2.layer3', 2.0)):
        layers[name].keep.data.fill_(0.8)
        layers[name].logits['irb_k3'].data.fill_(logit)
    pruned = copy.deepcopy(unpruned)
    pruned.remove_layer('stage2.layer2')
    sources = inherit_weights(PRUNet(settle(pruned).to_dict()), unpruned.state_dict())
    assert ('stage2.layer3', 'irb_k3') in sources
    assert ('stage2.layer2', 'irb_k3') not in sources


@pytest.mark.parametrize(('sampling', 'source'), [('hard', 3), ('softmax', 2)])
def test_only_blends_are_cooled(make_supernet, sampling, source):
    """0.9 * 0.6 of layer 3 is more than 0.6 * 0.8 of layer 2, but not at a low temperature."""
    supernet = make_supernet(sampling=sampling)
    supernet.open_skips()
    for number, chance, keep in ((2, 0.6, 0.8), (3, 0.9, 0.6)):
        chances = {'irb_k3': chance * keep, 'fused_irb_k3': (1 - chance) * keep, SKIP: 1 - keep}
        supernet.layers()[f'stage2.layer{number}'].believe(chances)
    supernet.set_temperature(0.3)
    pruned = copy.deepcopy(supernet)
    pruned.remove_layer('stage2.layer2')
    sources = inherit_weights(PRUNet(settle(pruned).to_dict()), supernet.state_dict())
    assert sources[3] == (f'stage2.layer{source}', 'irb_k3')


def test_what_is_equally_probable_is_refused(make_space, save):
    supernet = SuperNet(make_space())
    pruned = copy.deepcopy(supernet)
    pruned.remove_layer('stage2.layer2')
    text = (
        r'searched.pth: layers\[2\], layers\[3\] may be stage2.layer1, stage2.layer2 or '
        'stage2.layer1, stage2.layer3, which are equally probable'
    )
    with pytest.raises(CheckpointError, match=text):
        inherited(settle(pruned), save(supernet))


def test_where_the_candidates_leave_one_way_nothing_is_ambiguous(make_space):
    supernet = SuperNet(make_space())
    supernet.layers()['stage2.layer2'].logits['irb_k3'].data.fill_(-9.0)
    supernet.prune_below(0.01)
    pruned = copy.deepcopy(supernet)
    pruned.remove_layer('stage2.layer2')
    sources = inherit_weights(PRUNet(settle(pruned).to_dict()), supernet.state_dict())
    assert sources[2:4] == [('stage2.layer1', 'irb_k3'), ('stage2.layer3', 'irb_k3')]


# How it is reached


@pytest.mark.parametrize('prefix', [None, PREFIX, PREFIX.rstrip('.')])
@pytest.mark.parametrize('where', ['', PREFIX, f'module.{PREFIX}'])
def test_it_finds_the_supernet_under_any_prefix(make_supernet, save, x, prefix, where):
    supernet = make_supernet()
    spec = settle(supernet)
    init_cfg = dict(type='SuperNet', checkpoint=save(supernet, where), prefix=prefix)
    network = PRUNet(spec.to_dict(), out_indices=(1, 2, 3), init_cfg=init_cfg)
    if prefix and where != PREFIX:
        with pytest.raises(CheckpointError, match=f'holds no SuperNet at .*may be {where!r}'):
            network.init_weights()
    else:
        network.init_weights()
        same_outputs(network.eval(), supernet, x)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
def test_a_model_around_it_initialises_nothing_again(make_supernet, save, scope):
    DefaultScope.get_instance(f'test-inherit-{scope}', scope_name=scope)
    supernet = make_supernet()
    backbone = dict(
        type='PRUNet',
        arch=settle(supernet).to_dict(),
        init_cfg=[
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='SuperNet', checkpoint=save(supernet)),
        ],
    )
    others = dict(type='Constant', layer='Conv2d', val=7.0)
    model = Sequential(MODELS.build(backbone), init_cfg=others)
    model.init_weights()
    model.init_weights()
    alone = inherited(model[0].spec, save(supernet)).state_dict()
    found = model[0].state_dict()
    assert found.keys() == alone.keys()
    assert all(torch.equal(found[name], value) for name, value in alone.items())


def test_neck_and_head_start_by_mmengines_own_means(make_supernet, save, x):
    use_safe_loading()
    supernet = make_supernet()
    spec = settle(supernet)
    supernet.out_indices = (3,)
    neck = dict(type='mmpretrain.PRUNetTail', in_channels=8, channels=12)
    head = dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=12)
    searched = ImageClassifier(backbone=supernet, neck=neck, head=head)
    searched.neck.conv.bn.running_mean.uniform_(0.5, 1.5)
    checkpoint = save(searched, 'architecture.')
    part = dict(type='Pretrained', checkpoint=checkpoint)
    classifier = ImageClassifier(
        backbone=PRUNet(spec.to_dict(), init_cfg=dict(type='SuperNet', checkpoint=checkpoint)),
        neck=dict(neck, init_cfg=dict(part, prefix='architecture.neck.')),
        head=dict(head, init_cfg=dict(part, prefix='architecture.head.')),
    )
    classifier.init_weights()
    with torch.no_grad():
        found, expected = (model.eval()(x, mode='tensor') for model in (classifier, searched))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# What is refused


@pytest.fixture
def refused(save):
    """Assert that a network cannot start from a state dict, and why, in one sentence."""

    def check(why, spec, supernet, error=CheckpointError, **options):
        checkpoint = save(supernet)
        with pytest.raises(error, match=why) as caught:
            inherited(spec, checkpoint, **options)
        assert '\n' not in str(caught.value)
        told = explain(caught.value)  # as a command line prints it
        assert told == str(caught.value)
        assert told.startswith(f'{checkpoint}: ')

    return check


class Weights:
    """What `save` takes as a model."""

    def __init__(self, weights):
        self.state_dict = lambda: weights


def test_a_file_without_a_supernet(make_supernet, refused):
    weights = Weights({'structure': torch.zeros(3), 'conv.weight': torch.zeros(3)})
    refused('holds no SuperNet: give a checkpoint of a search', settle(make_supernet()), weights)


def test_a_file_with_several(make_supernet, refused):
    supernet = make_supernet()
    both = torch.nn.ModuleDict(dict(a=supernet, b=copy.deepcopy(supernet)))
    text = f"holds several SuperNets, and no prefix is given: prefix may be '{PREFIX}a.' or "
    refused(text, settle(supernet), both)


def test_a_damaged_or_incomplete_file(make_supernet, refused):
    supernet = make_supernet()
    spec = settle(supernet)
    weights = supernet.state_dict()
    damaged = weights | {'structure': weights['structure'][:-5]}
    refused('record of what has been pruned is damaged', spec, Weights(damaged))
    (name,) = (k for k in weights if 'stage3.layer1' in k and 'project.bn.running_var' in k)
    del weights[name]
    refused(rf"layers\[5\], hidden \d+: '{name}' is missing", spec, Weights(weights))


def test_a_network_of_another_space(make_supernet, refused):
    supernet = make_supernet()
    spec = settle(supernet)
    layers = list(spec.layers)
    layers[5] = layers[5].model_copy(update=dict(hidden=64))
    text = (
        r"'small' is none of its search space 'small': layers\[5\].hidden: found 64, expected 4 to"
    )
    refused(text, spec.model_copy(update=dict(layers=tuple(layers))), supernet)


def test_a_candidate_that_has_been_pruned(make_supernet, refused):
    supernet = make_supernet()
    spec = settle(copy.deepcopy(supernet))
    chosen = f'irb_k{spec.layers[5].kernel}'
    supernet.layers()['stage3.layer1'].remove(chosen)
    supernet.settle()
    text = rf'layers\[5\]: {chosen} has been pruned, left are stage3.layer1: irb_k'
    refused(text, spec, supernet)


def test_a_layer_that_has_been_removed(make_supernet, refused):
    supernet = make_supernet()
    spec = settle(copy.deepcopy(supernet))
    supernet.remove_layer('stage3.layer2')
    text = r'layers\[5\], layers\[6\] are 2 layers, but left in the SuperNet are 1: stage3.layer1'
    refused(text, spec, supernet)


def test_hidden_channels_that_the_file_does_not_have(make_supernet, refused):
    supernet = make_supernet()
    spec = settle(supernet)
    weights = supernet.state_dict()
    (name,) = (k for k in weights if k.startswith('stage3.layer1') and 'project.conv' in k)
    weights[name] = weights[name][:, : spec.layers[5].hidden - 1]
    text = rf'layers\[5\], hidden {spec.layers[5].hidden}: {name} has shape .*, needed is'
    refused(text, spec, Weights(weights))


@pytest.mark.parametrize(
    'options', [dict(deploy=True), dict(norm_cfg=dict(type='GN', num_groups=1))]
)
def test_norms_that_the_supernet_does_not_have(make_supernet, refused, options):
    supernet = make_supernet()
    refused('has to have norms of type BN, not folded', settle(supernet), supernet, **options)


def test_a_checkpoint_that_is_not_there(make_supernet):
    with pytest.raises(CheckpointError, match='nowhere.pth: there is no such checkpoint'):
        inherited(settle(make_supernet()), 'nowhere.pth')


def test_a_checkpoint_that_does_not_fit_after_another_initialisation(make_supernet, save):
    supernet = make_supernet()
    checkpoint = save(supernet)
    init_cfg = [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='SuperNet', checkpoint=checkpoint),
    ]
    with pytest.raises(CheckpointError, match=f"^{checkpoint}: the network 'prunet_p0' is none"):
        PRUNet('prunet_p0', init_cfg=init_cfg).init_weights()


def test_a_module_that_is_no_prunet(make_supernet, save):
    init_cfg = dict(type='SuperNet', checkpoint=save(make_supernet()))
    backbone = PRUNet('prunet_p0', init_cfg=None)
    with pytest.raises(
        ConfigError, match='is for a backbone of type PRUNet, found a ImageClassifier'
    ):
        ImageClassifier(backbone=backbone, init_cfg=init_cfg).init_weights()
