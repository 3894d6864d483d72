import copy

import pytest
import timm
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import ConvAWS2d
from torch import nn

from prunet_mm.errors import ConfigError
from prunet_mm.models import PRUNet, PRUNetTail
from prunet_mm.models.deploy import fold_norms
from prunet_mm.spec import load_zoo, zoo_names

BN = dict(type='BN')


def randomized(module):
    """Let every norm do something, so that leaving it out or folding it wrongly shows."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, (nn.BatchNorm2d, nn.GroupNorm)):
            for name, value in norm.state_dict().items():
                if value.is_floating_point():
                    centre = 1.0 if name in ('weight', 'running_var') else 0.0
                    value.uniform_(centre - 0.5, centre + 0.5)
    return module.eval()


class ShiftedNorm(nn.BatchNorm2d):
    """Does something of its own behind the norm."""

    def forward(self, x):
        return super().forward(x) + 1


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@torch.no_grad()
def assert_same(found, wanted, x, tolerance=1e-5):
    found, wanted = found(x), wanted(x)
    if isinstance(wanted, torch.Tensor):
        found, wanted = (found,), (wanted,)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert b.abs().max() > 0
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize('name', zoo_names())
def test_a_deployed_network_computes_what_it_did(name):
    net = randomized(PRUNet(name, out_indices=tuple(load_zoo(name).out_channels)))
    deployed = copy.deepcopy(net)
    deployed.switch_to_deploy()
    assert norms(net) and not norms(deployed)
    assert_same(deployed, net, torch.randn(2, 3, 64, 64))


def test_a_deployed_tail_computes_what_it_did():
    tail = randomized(PRUNetTail(8, channels=16, features=12))
    deployed = copy.deepcopy(tail)
    deployed.switch_to_deploy()
    assert not norms(deployed)
    assert_same(deployed, tail, torch.randn(2, 8, 5, 5))


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_b0', 'regnetx_002'])
def test_timms_networks_compute_what_they_did(name):
    """Some have norms that include the activation."""
    model = randomized(timm.create_model(name, num_classes=4))
    folded = fold_norms(copy.deepcopy(model))
    assert norms(model) and not norms(folded)
    assert_same(folded, model, torch.randn(1, 3, 64, 64))


def test_weights_saved_after_the_switch_load_where_deploy_is_set():
    arch = dict(base='prunet_p0', resolution=64)
    net = randomized(PRUNet(arch))
    net.switch_to_deploy()
    loaded = PRUNet(arch, deploy=True).eval()
    loaded.load_state_dict(net.state_dict())
    assert_same(loaded, net, torch.randn(1, 3, 64, 64), tolerance=0)


def test_folding_again_changes_nothing():
    once = fold_norms(randomized(nn.Sequential(ConvModule(3, 4, 3, norm_cfg=BN))))
    before = {name: value.clone() for name, value in once.state_dict().items()}
    assert fold_norms(once) is once
    assert before.keys() == once.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in once.state_dict().items())


def test_the_result_is_in_evaluation_mode():
    folded = fold_norms(nn.Sequential(nn.Dropout(), ConvModule(3, 4, 3, norm_cfg=BN)).train())
    assert not any(module.training for module in folded.modules())


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('affine', [True, False])
def test_biases_and_norms_without_weights(bias, affine):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine))
    folded = fold_norms(copy.deepcopy(randomized(net)))
    assert not norms(folded)
    assert_same(folded, net, torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    'net',
    [
        ConvModule(4, 4, 3, norm_cfg=BN, order=('norm', 'conv', 'act')),
        ConvModule(4, 4, 3, norm_cfg=BN, order=('conv', 'act', 'norm')),
        ConvModule(4, 4, 3, norm_cfg=dict(type='GN', num_groups=2)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(ConvAWS2d(4, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3), ShiftedNorm(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    ],
    ids=[
        'norm-conv',
        'conv-act-norm',
        'group-norm',
        'act-between',
        'own-weights',
        'own-norm',
        'no-statistics',
    ],
)
def test_what_cannot_be_folded_stays_as_it_is(net):
    folded = fold_norms(copy.deepcopy(randomized(net)))
    assert folded.state_dict().keys() == net.state_dict().keys()
    assert_same(folded, net, torch.randn(2, 4, 8, 8), tolerance=0)


def test_a_block_in_two_places_is_folded_once():
    block = ConvModule(4, 4, 3, padding=1, norm_cfg=BN)
    net = randomized(nn.ModuleDict(dict(first=block, second=block)))
    twice = nn.Sequential(net['first'], net['second'])
    folded = fold_norms(copy.deepcopy(twice))
    assert not norms(folded)
    assert_same(folded, twice, torch.randn(2, 4, 8, 8))


def two_branches(**shared):
    """Two sequences of a convolution and a norm that have something in common."""
    branches = [nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    for branch in branches:
        if 'conv' in shared:
            branch[0] = shared['conv']
        if 'norm' in shared:
            branch[1] = shared['norm']
        if 'weight' in shared:
            branch[0].weight = shared['weight']
    return nn.Sequential(*branches)


@pytest.mark.parametrize(
    ('shared', 'name'),
    [
        (dict(conv=nn.Conv2d(4, 4, 3)), '0'),
        (dict(norm=nn.BatchNorm2d(4)), '1'),
        (dict(weight=nn.Parameter(torch.ones(4, 4, 3, 3))), '0'),
    ],
)
def test_what_is_shared_with_another_place_is_refused_and_nothing_is_folded(shared, name):
    net = two_branches(**shared)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=f"'{name}' in a Sequential is shared"):
        fold_norms(net)
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
