import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from prunet_mm.models.blocks import build_block
from prunet_mm.spec import LayerSpec

BLOCKS = [
    dict(op=op, se=se, act=act, **shape)
    for op, (se, act), shape in itertools.product(
        ['irb', 'fused_irb'],
        [(0, 'relu'), (0, 'swish'), (3, 'relu'), (3, 'swish')],
        [dict(), dict(stride=2, out_channels=6)],  # with and without a residual
    )
]
blocks = pytest.mark.parametrize('options', BLOCKS, ids=lambda o: '-'.join(map(str, o.values())))
modes = pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])


class UpToProjection(nn.Module):
    """A real, narrow block without what follows its last convolution."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        h = self.block.expand(x)
        if hasattr(self.block, 'depthwise'):
            h = self.block.depthwise(h)
        if self.block.se is not None:
            h = self.block.se(h)
        return self.block.project.conv(h)


def narrow(prunode, width):
    """A separate block of that hidden width, and the shared tensors it is to be called with."""
    block, conv = prunode.block, prunode.block.expand.conv
    fused = not hasattr(block, 'depthwise')
    spatial = conv if fused else block.depthwise.conv
    layer = LayerSpec(
        op='fused_irb' if fused else 'irb',
        in_channels=conv.in_channels,
        out_channels=block.project.conv.out_channels,
        kernel=spatial.kernel_size[0],
        stride=spatial.stride[0],
        hidden=width,
        act='relu' if isinstance(block.expand.activate, nn.ReLU) else 'swish',
        se=0 if block.se is None else block.se.reduce.out_channels,
        stage=1,
    )
    small = build_block(layer).to(conv.weight.dtype).train(block.training)
    full = {k: v.clone() for k, v in block.named_buffers()} | dict(block.named_parameters())
    shared = {
        name: full[name][tuple(map(slice, tensor.shape))]
        for name, tensor in [*small.named_parameters(), *small.named_buffers()]
    }
    return small, shared


def two_paths(prunode, x):
    """The block as it is defined: two separate blocks, mixed in front of the last norm."""
    lo, hi, r = prunode.pair()
    outs = []
    for width in (lo, hi):
        small, shared = narrow(prunode, width)
        shared = {f'block.{name}': tensor for name, tensor in shared.items()}
        outs.append(functional_call(UpToProjection(small), shared, (x,)))
    bn = prunode.block.project.bn
    mixed = F.batch_norm(
        (1 - r) * outs[0] + r * outs[1],
        None if bn.training else bn.running_mean,
        None if bn.training else bn.running_var,
        bn.weight,
        bn.bias,
        bn.training,
        eps=bn.eps,
    )
    return x + mixed if prunode.block.residual else mixed


def everything(prunode, forward, x):
    """The output, and the gradients of input, r's parameter and all weights."""
    prunode.zero_grad()
    x = x.clone().requires_grad_()
    out = forward(x)
    (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in prunode.named_parameters()}
    return dict(output=out.detach(), input=x.grad, **gradients)


def assert_equal(found, expected, tolerance, terms):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max()
        if name == 'rule.width':  # a sum of which most cancels out: what it rounds is its terms
            scale = max(scale, terms)
        error = float((found[name] - value).abs().max() / scale)
        assert error <= tolerance, f'{name}: {error}'


@blocks
@modes
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=['fp64', 'fp32']
)
def test_one_pass_equals_two_paths(make_prunode, images, options, training, dtype, tolerance):
    prunode = make_prunode(**options, dtype=dtype).train(training)
    prunode.rule.set_gap(1 / 3)
    prunode.rule.jump(15.0)
    assert prunode.pair()[:2] == (12, 20)
    x = images.to(dtype)
    expected = everything(prunode, lambda x: two_paths(prunode, x), x)
    weight = prunode.block.project.conv.weight
    terms = (weight * weight.grad).detach()[:, 12:20].abs().sum() * prunode.widths[-1] / (20 - 12)
    assert_equal(everything(prunode, prunode, x), expected, tolerance, terms)


@blocks
def test_one_pass_records_the_statistics_of_the_wide_path(make_prunode, images, options):
    prunode = make_prunode(**options)
    hi = prunode.pair()[1]
    wide, shared = narrow(prunode, hi)
    wide.load_state_dict(shared)
    before = {name: tensor.clone() for name, tensor in prunode.block.named_buffers()}
    prunode(images)
    wide(images)
    after = dict(prunode.block.named_buffers())
    for name, expected in wide.named_buffers():
        if 'project' in name:  # sees the mixed sum, not one path
            continue
        if 'num_batches' in name:
            assert after[name] == before[name] + 1
            continue
        torch.testing.assert_close(after[name][:hi], expected, rtol=1e-12, atol=0)
        assert torch.equal(after[name][hi:], before[name][hi:])


@blocks
@modes
def test_slicing_equals_the_full_width_with_zeros(make_prunode, images, options, training):
    prunode = make_prunode(**options).train(training)
    prunode.fixed_width = 12
    masked, shared = narrow(prunode, prunode.widths[-1])
    masked.load_state_dict(shared)
    masked.project.conv.weight.data[:, 12:] = 0
    if masked.se is not None:
        masked.se.reduce.weight.data[:, 12:] = 0
    torch.testing.assert_close(prunode(images), masked(images), rtol=1e-12, atol=1e-12)


@blocks
def test_at_a_fixed_width_it_is_the_derived_block(make_prunode, images, options):
    prunode = make_prunode(**options).eval()
    for width in prunode.widths:
        prunode.fixed_width = width
        derived, shared = narrow(prunode, width)
        derived.load_state_dict(shared)
        torch.testing.assert_close(prunode(images), derived(images), rtol=1e-12, atol=1e-12)
        assert prunode.expected_width() == prunode.nearest_width() == width


@blocks
def test_channels_beyond_the_pair_get_no_gradient(make_prunode, images, options):
    prunode = make_prunode(**options)
    hi = prunode.pair()[1]
    prunode(images).square().sum().backward()
    for parameter, dim in prunode.hidden_tensors():
        assert parameter.grad.narrow(dim, hi, parameter.shape[dim] - hi).count_nonzero() == 0
        assert parameter.grad.narrow(dim, 0, hi).count_nonzero() > 0


@blocks
def test_hidden_tensors_are_all_tensors_with_hidden_channels(make_prunode, options):
    few, many = (make_prunode(**options, widths=range(4, n + 1, 4)) for n in (20, 24))
    sizes = zip(few.block.named_parameters(), many.block.named_parameters(), strict=True)
    growing = {name for (name, a), (_, b) in sizes if a.shape != b.shape}
    named = {id(parameter): name for name, parameter in many.block.named_parameters()}
    hidden = {named[id(parameter)]: dim for parameter, dim in many.hidden_tensors()}
    assert set(hidden) == growing
    assert all(many.block.get_parameter(n).shape[dim] == 24 for n, dim in hidden.items())


@blocks
@pytest.mark.parametrize('width', [4.0, 8.0, 12.0, 24.0])  # both ends, r = 0 and r = 1
@pytest.mark.parametrize('gap', [0.0, 1 / 3])
def test_gradient_on_the_width_is_finite_and_not_zero(make_prunode, images, options, width, gap):
    prunode = make_prunode(**options)
    prunode.rule.set_gap(gap)
    prunode.rule.jump(width)
    assert prunode.pair()[2].item() in (0.0, 0.5, 1.0)
    prunode(images).square().sum().backward()
    assert prunode.rule.width.grad.isfinite()
    assert prunode.rule.width.grad != 0


def test_output_does_not_jump_where_the_pair_does(make_prunode, images):
    prunode = make_prunode().eval()
    outs, pairs = [], []
    for width in (12 - 1e-6, 12 + 1e-6):
        prunode.rule.jump(width)
        outs.append(prunode(images))
        pairs.append(prunode.pair()[:2])
    assert pairs == [(8, 12), (12, 16)]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-5, atol=1e-5)


def saved_bytes(module, x):
    """Bytes that the backward pass keeps beside the module's own; each storage counts once."""
    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(x)
    assert out.requires_grad
    return sum(kept.values())


@blocks
def test_saved_activations_do_not_grow_with_the_number_of_widths(make_prunode, images, options):
    """With the pair at the same hi, both on a finer grid and on a longer one."""
    coarse, fine, long = (
        make_prunode(**options, widths=widths)
        for widths in (range(32, 129, 32), range(1, 129), range(32, 4097, 32))
    )
    coarse.rule.jump(60.0)
    fine.rule.jump(63.5)
    long.rule.jump(60.0)
    assert coarse.pair()[1] == fine.pair()[1] == long.pair()[1] == 64
    expected = saved_bytes(coarse, images)
    # The mask on the projection is the only thing that may differ.
    assert saved_bytes(fine, images) == pytest.approx(expected, rel=0.02)
    assert saved_bytes(long, images) == expected


def test_one_width_is_not_searched(make_prunode, images):
    prunode = make_prunode(widths=(8,))
    assert prunode.rule is None
    assert prunode.pair() == (8, 8, None)
    assert prunode(images).shape == images.shape


def test_expected_latency_is_linear_between_the_two_widths(make_prunode):
    prunode = make_prunode()
    prunode.latency_ms.copy_(torch.tensor([1.0, 1.0, 1.5, 4.0, 4.5, 9.0]))
    prunode.rule.jump(13.0)
    cost = prunode.expected_latency_ms()
    assert cost.item() == pytest.approx(1.5 + 0.25 * 2.5)
    cost.backward()
    assert float(prunode.rule.width.grad) == pytest.approx(2.5 / 4 * 24)


def test_nearest_width_takes_the_narrower_of_two_equally_near(make_prunode):
    prunode = make_prunode()
    for expected, nearest in [(4.0, 4), (13.9, 12), (14.0, 12), (14.1, 16), (24.0, 24)]:
        prunode.rule.jump(expected)
        assert prunode.nearest_width() == nearest
