import itertools

import pytest
import torch
from effdet import get_efficientdet_config
from effdet.efficientdet import BiFpn
from mmdet.registry import MODELS
from torch import nn

from prunet_mm.detection.bifpn import BiFPN, FusionNode
from prunet_mm.errors import ConfigError
from prunet_mm.models.deploy import fold_norms

D0_CHANNELS = (40, 112, 320)


def randomise(module):
    """Weights and statistics unlike those at the start, and unlike each other."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.2, 1.0)
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.data.sub_(0.6).div_(conv.weight[0].numel() ** 0.5)
    return module.eval()


def reference(variant='efficientdet_d0', in_channels=D0_CHANNELS, **config):
    cfg = get_efficientdet_config(variant)
    cfg.update(config)
    info = [
        dict(num_chs=channels, reduction=8 * 2**level) for level, channels in enumerate(in_channels)
    ]
    return randomise(BiFpn(cfg, info))


def copy_from_reference(theirs, ours):
    """Loads effdet's weights, part by part; what would not be loaded is found."""
    with torch.no_grad():
        for value in ours.state_dict().values():
            value.fill_(torch.nan if value.is_floating_point() else 0)
    for resample, projection in zip(theirs.resample.values(), ours.extra_levels, strict=True):
        copy_projection(resample, projection)
    for their_cell, our_cell in zip(theirs.cell, ours.cells, strict=True):
        nodes = [*reversed(our_cell.down), *our_cell.up]  # in the order of computing
        for fnode, node in zip(their_cell.fnode, nodes, strict=True):
            node.fusion_weights.data.copy_(fnode.combine.edge_weights)
            resamples = fnode.combine.resample.values()
            for resample, projection in zip(resamples, node.projections, strict=True):
                copy_projection(resample, projection)
            conv = fnode.after_combine.conv
            node.conv.depthwise.load_state_dict(conv.conv_dw.state_dict())
            node.conv.pointwise.load_state_dict(conv.conv_pw.state_dict())
            node.conv.norm.load_state_dict(conv.bn.state_dict())
    assert not any(value.isnan().any() for value in ours.state_dict().values())
    return ours.eval()


def copy_projection(resample, projection):
    assert hasattr(resample, 'conv') == hasattr(projection, 'conv')
    if hasattr(resample, 'conv'):
        projection.conv.load_state_dict(resample.conv.conv.state_dict())
        projection.norm.load_state_dict(resample.conv.bn.state_dict())


def inputs(in_channels=D0_CHANNELS, size=(512, 512), batch=2):
    return [
        torch.randn(batch, channels, size[0] // 2**level, size[1] // 2**level)
        for level, channels in enumerate(in_channels, start=3)
    ]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_d0_has_as_many_parameters_as_the_reference():
    neck = MODELS.build(dict(type='BiFPN', in_channels=D0_CHANNELS, out_channels=64, num_cells=3))
    assert parameters(neck) == parameters(reference()) == 194_361


@pytest.mark.parametrize(
    ('variant', 'width', 'cells'),
    [('efficientdet_d1', 88, 4), ('efficientdet_d2', 112, 5), ('efficientdet_d3', 160, 6)],
)
def test_scaled_pyramids_have_as_many_parameters_as_the_reference(variant, width, cells):
    with torch.device('meta'):
        neck = BiFPN(D0_CHANNELS, width, num_cells=cells)
    assert parameters(neck) == parameters(reference(variant))


@pytest.mark.parametrize(
    ('in_channels', 'size'),
    [
        (D0_CHANNELS, (512, 512)),
        (D0_CHANNELS, (256, 384)),
        ((40, 112, 64), (256, 256)),  # one map already has the pyramid's width
        ((40, 112, 320, 320), (256, 256)),
        ((40, 112, 160, 320, 320), (256, 256)),  # no level is pooled
    ],
)
def test_outputs_are_the_reference_s(in_channels, size):
    theirs = reference(in_channels=in_channels, image_size=size)
    ours = copy_from_reference(theirs, BiFPN(in_channels, 64))
    maps = inputs(in_channels, size)
    with torch.no_grad():
        expected, found = theirs(list(maps)), ours(maps)
    assert len(found) == len(expected) == 5
    for level, (a, b) in enumerate(zip(found, expected, strict=True), start=3):
        assert a.shape == (2, 64, size[0] // 2**level, size[1] // 2**level)
        assert b.abs().max() > 0.1
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_training_step_is_the_reference_s_too():
    theirs = reference(image_size=(256, 256))
    ours = copy_from_reference(theirs, BiFPN(D0_CHANNELS, 64))
    maps = inputs(size=(256, 256))
    theirs.train(), ours.train()
    with torch.no_grad():
        torch.testing.assert_close(list(ours(maps)), theirs(list(maps)), rtol=1e-4, atol=1e-4)
    found, expected = (
        sorted(norm.running_var.sum().item() for norm in net.modules() if is_norm(norm))
        for net in (ours, theirs)
    )
    assert found == pytest.approx(expected, rel=1e-4)
    assert {(norm.eps, norm.momentum) for norm in ours.modules() if is_norm(norm)} == {(1e-3, 0.01)}


def is_norm(module):
    return isinstance(module, nn.BatchNorm2d)


def test_fusion_weights_are_positive_and_sum_to_one():
    node = FusionNode([4, 4, 4], 4, dict(type='BN'), dict(type='SiLU'), eps=1e-4)
    node.conv = node.act = nn.Identity()
    node.fusion_weights.data = torch.tensor([3.0, 1.0, -5.0])
    maps = [torch.full((1, 4, 8, 8), value) for value in (1.0, 2.0, 100.0)]
    expected = torch.full((1, 4, 8, 8), (3 * 1 + 1 * 2) / (4 + 1e-4))
    torch.testing.assert_close(node(maps), expected)
    node(maps).sum().backward()
    assert node.fusion_weights.grad[:2].all()


@pytest.mark.parametrize(
    'sizes',
    [
        [(99, 98), (50, 49), (25, 25)],  # 800 x 784 px in networks that pad their first layers by 0
        [(31, 47), (15, 23), (7, 11)],  # always rounded down
        [(8, 4), (4, 2), (2, 1)],  # the coarsest has a single column
    ],
)
def test_maps_of_any_size_are_fused_at_their_own_size(sizes):
    neck = BiFPN([8, 16, 32], 16)
    outs = neck([torch.randn(2, c, *size) for c, size in zip([8, 16, 32], sizes, strict=True)])
    found = [tuple(x.shape[-2:]) for x in outs]
    assert found[:3] == sizes
    for finer, coarser in zip(found[2:], found[3:], strict=False):
        assert coarser == tuple((length + 1) // 2 for length in finer)


def test_every_weight_learns():
    neck = BiFPN([8, 16, 32], 16, num_cells=2)
    neck.init_weights()
    sum(x.square().mean() for x in neck(inputs([8, 16, 32], (256, 256)))).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in neck.parameters())


def test_starts_with_maps_of_about_the_scale_of_its_inputs():
    neck = BiFPN(D0_CHANNELS, 64)
    neck.init_weights()
    depthwise, pointwise = (neck.cells[0].up[0].conv[i].weight for i in range(2))
    assert depthwise.std().item() == pytest.approx(9**-0.5, rel=0.1)
    assert pointwise.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert all(0.5 < x.std() < 2 for x in neck(inputs(size=(256, 256))))


def test_folding_its_norms_changes_nothing():
    neck = randomise(BiFPN([8, 16, 32], 16))
    maps = inputs([8, 16, 32], (256, 256))
    with torch.no_grad():
        before, after = neck(maps), fold_norms(neck)(maps)
    assert not any(is_norm(module) for module in neck.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [(dict(num_outs=2), 'num_outs is 2, .* 3$'), (dict(num_cells=0), 'num_cells is 0')],
)
def test_an_impossible_pyramid_is_one_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        BiFPN(D0_CHANNELS, 64, **settings)
