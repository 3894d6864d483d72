import pytest
from pydantic import ValidationError

from prunet_mm.spec import BlockKey, LayerSpec, TailSpec


def layer(**changes):
    fields = dict(
        op='irb',
        in_channels=16,
        out_channels=16,
        kernel=3,
        stride=1,
        hidden=64,
        act='relu',
        stage=1,
    )
    return LayerSpec(**{**fields, **changes})


def test_block_key_holds_all_that_changes_the_kernels():
    assert layer(se=4).block_key(7, 9) == BlockKey('irb', 16, 16, 64, 3, 1, 'relu', 4, 7, 9)
    tail = TailSpec(channels=32, num_classes=10)
    assert tail.block_key(16, 7, 9) == BlockKey('tail', 16, 10, 32, 1, 1, 'relu', 0, 7, 9)


def test_costs_of_a_layer_written_out():
    one = layer()
    weights = 16 * 64 + 9 * 64 + 64 * 16
    assert one.params() == weights + 2 * (64 + 64 + 16)
    assert one.macs(5, 6) == weights * 30
    assert [kernel.kind for kernel in one.kernels(5, 6)] == ['gemm', 'depthwise', 'gemm']


def test_residual_needs_equal_width_stride_1_and_an_inverted_block():
    assert layer().residual
    assert layer(op='fused_irb').residual
    assert not layer(stride=2).residual
    assert not layer(out_channels=32).residual
    assert not layer(op='conv', hidden=0).residual


def test_a_layer_cannot_be_changed_and_can_be_a_key():
    one = layer()
    with pytest.raises(ValidationError):
        one.hidden = 32
    assert {one: 1}[layer()] == 1


def test_a_layer_that_fits_no_op_is_refused_where_it_is_made():
    for wrong in (dict(op='conv'), dict(hidden=0), dict(op='conv', hidden=0, se=2)):
        with pytest.raises(ValidationError):
            layer(**wrong)
