import pytest
import torch
from torch import nn

from prunet_mm.models import build_block
from prunet_mm.spec import LayerSpec
from prunet_mm.spec.kernels import INVERTED


def layer(op='irb', **fields):
    defaults = dict(in_channels=8, out_channels=8, kernel=3, stride=1, act='relu', stage=1)
    if op == 'shortcut':
        fields['kernel'] = 1
    hidden = 16 if op in INVERTED else 0
    return LayerSpec(op=op, hidden=hidden, **{**defaults, **fields})


@pytest.mark.parametrize('op', ['conv', 'ds', 'irb', 'fused_irb', 'shortcut'])
@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize(('stride', 'size'), [(1, 7), (2, 4)])
def test_output_shape_is_that_of_the_spec(op, kernel, stride, size):
    spec = layer(op, out_channels=12, kernel=kernel, stride=stride)
    out = build_block(spec)(torch.rand(2, 8, 7, 7))
    assert out.shape == (2, 12, size, size)
    assert spec.block_key(7, 7).out_size == (size, size)


@pytest.mark.parametrize('op', ['conv', 'ds', 'irb', 'fused_irb', 'shortcut'])
@pytest.mark.parametrize('se', [0, 4])
def test_parameters_are_those_the_spec_counts(op, se):
    spec = layer(op, se=0 if op in ('conv', 'shortcut') else se, out_channels=12, kernel=5)
    assert sum(p.numel() for p in build_block(spec).parameters()) == spec.params()


@pytest.mark.parametrize('op', ['ds', 'irb', 'fused_irb'])
def test_residual_adds_the_input(op):
    block = build_block(layer(op)).eval()
    nn.init.zeros_(block.project.conv.weight)
    x = torch.rand(1, 8, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    'fields',
    [dict(op='irb', stride=2), dict(op='fused_irb', out_channels=16), dict(op='conv')]
    + [dict(op='shortcut')],
)
def test_no_residual_across_stride_or_width_or_in_a_conv(fields):
    block = build_block(layer(**fields)).eval()
    last = block.conv if fields['op'] in ('conv', 'shortcut') else block.project
    nn.init.zeros_(last.conv.weight)
    assert block(torch.rand(1, 8, 5, 5)).count_nonzero() == 0


@pytest.mark.parametrize('op', ['conv', 'ds', 'irb', 'fused_irb'])
def test_padding_is_that_of_the_spec(op):
    spec = layer(op, stride=2, padding=0)
    out = build_block(spec)(torch.rand(1, 8, 8, 9))
    assert out.shape[2:] == spec.block_key(8, 9).out_size == (3, 4)


@pytest.mark.parametrize('op', ['conv', 'ds', 'irb', 'fused_irb'])
def test_drop_path_skips_whole_images_in_training_only(op):
    torch.manual_seed(0)
    block = build_block(layer(op, residual=True), drop_path=0.5).train()
    x = torch.rand(64, 8, 5, 5)
    skipped = (block(x) == x).flatten(1).all(1)
    assert 10 < skipped.sum() < 54
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_irb_equals_its_parts_written_out():
    block = build_block(layer(act='swish', se=4)).eval()
    x = torch.rand(2, 8, 5, 5)

    def bn(module, x):
        return module.bn(module.conv(x))

    hidden = nn.functional.silu(bn(block.expand, x))
    hidden = nn.functional.silu(bn(block.depthwise, hidden))
    gate = block.se.expand(nn.functional.silu(block.se.reduce(hidden.mean((2, 3), keepdim=True))))
    expected = x + bn(block.project, hidden * torch.sigmoid(gate))
    torch.testing.assert_close(block(x), expected)
    assert block.depthwise.conv.groups == 16


def test_no_activation_behind_the_projection():
    assert not build_block(layer('irb')).project.with_activation
    assert not build_block(layer('fused_irb')).project.with_activation


def test_a_shortcut_is_linear():
    block = build_block(layer('shortcut', stride=2, act='swish')).eval()
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(block(-x), -block(x))
    assert block(x).shape == (2, 8, 3, 3)


def test_norm_defaults_to_the_released_networks_and_can_be_replaced():
    norm = build_block(layer()).expand.norm
    assert (norm.eps, norm.momentum) == (1e-3, 0.1)
    replaced = build_block(layer(), norm_cfg=dict(type='GN', num_groups=4))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in replaced.modules())


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('kernel', [3, 5])
def test_same_padding_is_tensorflows(size, kernel):
    block = build_block(layer('ds', stride=2, kernel=kernel, padding='same'))
    total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
    before, after = total // 2, total - total // 2
    x = torch.rand(1, 8, size, size)
    expected = nn.functional.conv2d(
        nn.functional.pad(x, (before, after, before, after)),
        block.depthwise.conv.weight,
        stride=2,
        groups=8,
    )
    torch.testing.assert_close(block.depthwise.conv(x), expected)
    assert (before == after) == (size == 7)


def test_squeeze_and_excitation_has_its_own_activation_and_gate():
    plain = layer(act='hard_swish', se=4)
    own = plain.model_copy(update=dict(se_act='relu', se_gate='hard_sigmoid'))
    assert isinstance(build_block(plain).se.act, nn.Hardswish)
    block = build_block(own).eval()
    x = torch.randn(2, 16, 5, 5)
    squeezed = nn.functional.relu(block.se.reduce(x.mean((2, 3), keepdim=True)))
    torch.testing.assert_close(
        block.se(x), x * nn.functional.hardsigmoid(block.se.expand(squeezed))
    )


@pytest.mark.parametrize(
    ('act', 'kind'), [('relu6', nn.ReLU6), ('hard_swish', nn.Hardswish), ('swish', nn.SiLU)]
)
def test_the_activation_may_follow_the_projection_too(act, kind):
    assert isinstance(build_block(layer('ds', act=act, act_last=True)).project.activate, kind)
    assert not build_block(layer('ds', act=act)).project.with_activation
