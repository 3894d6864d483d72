"""A SuperNet that starts as a trained network of its space."""

import pytest
import torch
from mmpretrain.registry import MODELS

from prunet_mm.errors import CheckpointError, ConfigError
from prunet_mm.models import PRUNet
from prunet_mm.models.unexplained import unexplained
from prunet_mm.spec import NetworkSpec
from prunet_mm.supernet import SuperNet
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.trained import start_as


def layer(op, inputs, outputs, stage, **fields):
    common = dict(kernel=3, stride=1, act='relu6', stage=stage)
    return dict(common, op=op, in_channels=inputs, out_channels=outputs, **fields)


SPEC = NetworkSpec.from_dict(
    dict(
        name='small',
        resolution=21,
        norm_eps=1e-5,
        stem=[layer('conv', 3, 8, 0, stride=2, padding='same')],
        layers=[
            layer('ds', 8, 8, 1, act_last=True),
            layer('irb', 8, 12, 2, stride=2, hidden=24, padding='same', kernel=5),
            layer('irb', 12, 12, 2, hidden=30, se=4, se_act='relu', se_gate='hard_sigmoid'),
            layer('fused_irb', 12, 16, 3, hidden=20, stride=2),
            layer('fused_irb', 16, 16, 3, hidden=24, kernel=5, se=3),
            layer('conv', 16, 16, 3, residual=True),
        ],
    )
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = PRUNet(SPEC.to_dict())
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for value in (norm.weight, norm.running_var):
                value.data.uniform_(0.5, 1.5)
            for value in (norm.bias, norm.running_mean):
                value.data.normal_(0, 0.3)
    return network.eval()


def around(**options):
    space = dict(type='around', arch=SPEC.to_dict(), granularity=4, **options)
    return SuperNet(space).eval()


@pytest.mark.parametrize('options', [dict(), dict(largest=1.5), dict(kernels=[3, 5, 7])])
@torch.no_grad()
def test_its_output_is_the_networks_whatever_it_holds_beside(network, options):
    supernet = around(**options)
    start_as(supernet, network)
    x = torch.randn(2, 3, 21, 22)
    (found,), (wanted,) = supernet(x), network(x)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    spec = supernet.derive(name='small')
    if not options.get('largest'):
        assert spec.layers == SPEC.layers
    assert spec.norm_eps == SPEC.norm_eps


@torch.no_grad()
def test_kernels_start_from_zeros_around_or_from_the_centre(network):
    supernet = around()
    start_as(supernet, network)
    layers = supernet.layers()

    def weights(name, candidate):
        return layers[name].candidates[candidate].block.depthwise.conv.weight

    small, large = (weights('stage2.layer2', f'irb_k{kernel}') for kernel in (3, 5))
    assert torch.equal(large[..., 1:-1, 1:-1], small)
    assert large.count_nonzero() == small.count_nonzero()
    small, large = (weights('stage2.layer1', f'irb_k{kernel}') for kernel in (3, 5))
    assert torch.equal(large[..., 1:-1, 1:-1], small)
    assert large.count_nonzero() > small.count_nonzero()


@torch.no_grad()
def test_the_first_channels_are_the_most_important_ones(network):
    supernet = around()
    start_as(supernet, network)
    for name, stochastic in supernet.layers().items():
        for candidate in stochastic.candidates.values():
            block = candidate.block
            if hasattr(block, 'expand'):
                last = getattr(block, 'depthwise', block.expand)
                columns = block.project.conv.weight.flatten(1).norm(dim=0)
                scores = last.bn.weight.abs() * columns
                assert torch.equal(scores, scores.sort(descending=True).values), name


@torch.no_grad()
def test_a_narrower_path_is_the_network_without_its_last_channels(network):
    supernet = around()
    start_as(supernet, network)
    x = torch.randn(2, 12, 6, 6)
    prunode = supernet.layers()['stage2.layer2'].candidates['irb_k3']
    with at_widths({prunode: 10}):
        found = prunode(x)
    block = prunode.block
    block.project.conv.weight[:, 10:] = 0
    block.se.reduce.weight[:, 10:] = 0
    torch.testing.assert_close(found, block(x))


def test_from_a_config(network, tmp_path):
    checkpoint = tmp_path / 'net.pth'
    state = {f'backbone.{key}': value for key, value in network.state_dict().items()}
    torch.save(dict(state_dict=state), checkpoint)
    init = dict(type='TrainedNetwork', arch=SPEC.to_dict(), checkpoint=str(checkpoint))
    config = dict(type='SuperNet', space=dict(type='around', arch=SPEC.to_dict()), init_cfg=init)
    supernet = MODELS.build(config)
    supernet.init_weights()
    x = torch.randn(1, 3, 21, 21)
    torch.testing.assert_close(supernet.eval()(x)[0], network(x)[0], rtol=1e-5, atol=1e-5)

    torch.save(dict(state_dict=dict(list(state.items())[1:])), checkpoint)
    with pytest.raises(CheckpointError, match='net.pth: .*is missing'):
        MODELS.build(config).init_weights()
    with pytest.raises(ConfigError, match='is for a backbone of type SuperNet'):
        MODELS.build(dict(type='PRUNet', arch=SPEC.to_dict(), init_cfg=init)).init_weights()


@torch.no_grad()
def test_what_imitates_starts_near_the_layer_and_changes_no_output(network):
    torch.manual_seed(0)
    supernet = around(fused=True)
    candidates = supernet.layers()['stage2.layer1'].candidates
    x = torch.randn(8, 8, 11, 11)

    def left():
        wanted = candidates['irb_k5'].train()(x)
        return float(unexplained(candidates['fused_irb_k5'].train()(x), wanted))

    start_as(supernet, network, imitated=True)
    images = torch.randn(2, 3, 21, 22)
    torch.testing.assert_close(supernet(images)[0], network(images)[0], rtol=1e-5, atol=1e-5)
    near = left()
    candidates['fused_irb_k5'].block.expand.conv.reset_parameters()
    assert near < 0.6 * left()


def test_what_cannot_be_had_from_the_network_is_refused(network):
    space = around().space.to_dict()
    del space['origin']
    space['stages'][1]['layers'][1]['candidates'].append(
        dict(op='fused_irb', kernel=3, act='relu6', hidden=24)
    )
    with pytest.raises(ConfigError, match='stage2.layer2: .* fused_irb_k3 .*init_cfg.imitation'):
        start_as(SuperNet(space), network)
    del space['stages'][2]
    space['name'] = 'shorter'
    with pytest.raises(ConfigError, match='the SuperNet has 3 layers and small 6'):
        start_as(SuperNet(space), network)
