import random

import pytest
from torch import nn

from prunet_mm.spec import BlockKey


def conv(kernel):
    """The convolution or linear layer that a kernel stands for."""
    groups = kernel.out_channels if kernel.kind == 'depthwise' else 1
    return nn.Conv2d(
        kernel.in_channels,
        kernel.out_channels,
        kernel.kernel,
        kernel.stride,
        kernel.kernel // 2 if kernel.padding is None else kernel.padding,
        groups=groups,
        bias=False,
    )


def random_key(rng, op):
    inputs, plain = rng.choice([4, 8]), op in ('conv', 'ds', 'shortcut')
    return BlockKey(
        op,
        inputs,
        rng.choice([inputs, 12]),
        0 if plain else rng.choice([4, 20]),
        1 if op == 'shortcut' else rng.choice([1, 3, 5]),
        rng.choice([1, 2]),
        'relu',
        0 if plain else rng.choice([0, 2]),
        rng.randint(5, 9),
        rng.randint(5, 9),
        rng.choice([None, 0, 3]),
        False,
    )


@pytest.mark.parametrize('op', ['conv', 'ds', 'irb', 'fused_irb', 'shortcut'])
def test_kernels_chain_like_the_convolutions_they_stand_for(op):
    import torch

    rng = random.Random(0)
    for _ in range(30):
        key = random_key(rng, op)
        x = torch.zeros(1, key.in_channels, key.height, key.width)
        for kernel in key.kernels():
            if kernel.kind in ('gemm', 'depthwise') and kernel.affine == 2:
                assert x.shape[1:] == (kernel.in_channels, kernel.height, kernel.width)
                module = conv(kernel)
                x = module(x)
                assert module.weight.numel() == kernel.weights
                assert kernel.macs == kernel.weights * x.shape[2] * x.shape[3]
            assert x.shape[2:] == kernel.out_size or kernel.out_size == (1, 1)
        assert x.shape[1:] == (key.out_channels, *key.out_size)


def test_squeeze_and_excitation_sits_in_front_of_the_projection_at_output_size():
    key = BlockKey('irb', 8, 16, 32, 5, 2, 'relu', 2, 14, 7)
    kinds = [(kernel.kind, kernel.height, kernel.width) for kernel in key.kernels()]
    assert kinds == [
        ('gemm', 14, 7),
        ('depthwise', 14, 7),
        ('pool', 7, 4),
        ('gemm', 1, 1),
        ('gemm', 1, 1),
        ('scale', 7, 4),
        ('gemm', 7, 4),
    ]
    without = key._replace(se=0)
    # Two 1x1 convolutions with bias: weights 32 x 2 each way, biases 2 and 32.
    assert key.params() - without.params() == 2 * 32 * 2 + 2 + 32
    assert key.macs() - without.macs() == 2 * 32 * 2


@pytest.mark.parametrize('op', ['irb', 'fused_irb'])
def test_only_the_projection_of_a_block_of_equal_width_and_stride_1_adds_a_residual(op):
    key = BlockKey(op, 8, 8, 32, 3, 1, 'relu', 2, 14, 14)
    assert [kernel.residual for kernel in key.kernels()].count(True) == 1
    assert key.kernels()[-1].residual
    for other in (dict(stride=2), dict(out_channels=16)):
        assert not any(kernel.residual for kernel in key._replace(**other).kernels())


def test_a_conv_has_no_residual():
    assert not BlockKey('conv', 8, 8, 0, 3, 1, 'relu', 0, 14, 14).has_residual


def test_a_tail_counts_its_conv_only_where_it_has_one():
    bare = BlockKey('tail', 8, 10, 0, 1, 1, 'relu', 0, 4, 4)
    assert bare.params() == 8 * 10 + 10
    assert bare.macs() == 8 * 10
    wide = bare._replace(hidden=32)
    assert wide.params() == 8 * 32 + 2 * 32 + 32 * 10 + 10
    assert wide.macs() == 8 * 32 * 4 * 4 + 32 * 10
