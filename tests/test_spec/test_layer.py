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
    assert layer().has_residual
    assert layer(op='fused_irb').has_residual
    assert not layer(stride=2).has_residual
    assert not layer(out_channels=32).has_residual
    assert not layer(op='conv', hidden=0).has_residual


def test_a_layer_cannot_be_changed_and_can_be_a_key():
    one = layer()
    with pytest.raises(ValidationError):
        one.hidden = 32
    assert {one: 1}[layer()] == 1


def test_a_layer_that_fits_no_op_is_refused_where_it_is_made():
    shortcut = dict(op='shortcut', hidden=0, kernel=1)
    for wrong in (
        dict(op='conv'),
        dict(hidden=0),
        dict(op='conv', hidden=0, se=2),
        dict(shortcut, kernel=3),
        dict(shortcut, hidden=8),
        dict(shortcut, se=2),
        dict(shortcut, residual=True),
        dict(op='ds'),
        dict(op='conv', hidden=0, act_last=True),
        dict(se_act='relu6'),
        dict(se_gate='hard_sigmoid'),
        dict(se=4, se_gate='tanh'),
        dict(act='gelu'),
        dict(padding='valid'),
        dict(padding=True),
    ):
        with pytest.raises(ValidationError):
            layer(**wrong)


def test_a_shortcut_is_one_product_without_residual():
    one = layer(op='shortcut', hidden=0, kernel=1, stride=2, out_channels=24)
    assert one.params() == 16 * 24 + 2 * 24
    assert one.macs(7, 6) == 16 * 24 * 4 * 3
    assert not layer(op='shortcut', hidden=0, kernel=1).has_residual


def test_residual_may_be_said_and_turned_off_where_the_rule_has_it():
    assert layer(residual=True).block_key(5, 5) == layer().block_key(5, 5)
    off = layer(residual=False)
    assert not off.has_residual
    assert off.block_key(5, 5) != layer().block_key(5, 5)
    assert not any(kernel.residual for kernel in off.kernels(5, 5))


@pytest.mark.parametrize(
    ('changes', 'why'),
    [
        (dict(out_channels=32), '16 channels go in and 32 come out'),
        (dict(stride=2), 'stride 2'),
        (dict(op='conv', hidden=0, stride=2), 'stride 2'),
        (dict(op='shortcut', hidden=0, kernel=1), 'a shortcut has none'),
        (dict(padding=0), 'padding 0 with kernel 3'),
    ],
)
def test_a_residual_that_cannot_be_added_is_refused(changes, why):
    with pytest.raises(ValidationError, match=why):
        layer(residual=True, **changes)


def test_padding_shrinks_the_map_and_is_left_out_where_it_is_the_default():
    assert layer(stride=2, padding=1).block_key(8, 8) == layer(stride=2).block_key(8, 8)
    valid = layer(op='fused_irb', stride=2, padding=0)
    assert [valid.block_key(size, size).out_size[0] for size in (160, 79, 39)] == [79, 39, 19]
    assert valid.macs(8, 8) == (9 * 16 * 64 + 64 * 16) * 3 * 3


def test_features_sit_behind_the_pool_without_norm_or_bias():
    tail = TailSpec(channels=32, features=48, num_classes=10).block_key(16, 4, 4)
    plain = TailSpec(channels=32, num_classes=10).block_key(16, 4, 4)
    assert [kernel.kind for kernel in tail.kernels()] == ['gemm', 'pool', 'gemm', 'gemm']
    assert tail.params() - plain.params() == 32 * 48 + (48 - 32) * 10


def test_a_depthwise_separable_layer_written_out():
    one = layer(op='ds', hidden=0, se=4, out_channels=24)
    squeeze = 2 * 16 * 4 + 4 + 16
    assert one.params() == 9 * 16 + 2 * 16 + squeeze + 16 * 24 + 2 * 24
    assert one.macs(5, 6) == (9 * 16 + 16 * 24) * 30 + 2 * 16 * 4
    assert not one.has_residual
    assert layer(op='ds', hidden=0).has_residual


def test_a_conv_has_a_residual_where_it_is_said():
    plain = dict(op='conv', hidden=0)
    assert not layer(**plain).has_residual
    assert layer(**plain, residual=True).kernels(5, 5)[0].residual
    assert layer(**plain, residual=True).block_key(5, 5) != layer(**plain).block_key(5, 5)


def test_same_padding_keeps_a_map_or_halves_it_rounded_up():
    assert layer(padding='same').block_key(8, 8) == layer().block_key(8, 8)
    halved = layer(padding='same', stride=2, kernel=5).block_key(7, 8)
    assert halved.out_size == (4, 4)
    assert halved != layer(stride=2, kernel=5).block_key(7, 8)


def test_fields_that_say_the_usual_make_the_same_key():
    assert layer(se=4, se_act='relu').block_key(5, 5) == layer(se=4).block_key(5, 5)
    assert layer(se=4, se_act='relu6').block_key(5, 5) != layer(se=4).block_key(5, 5)
    assert layer(act_last=True).block_key(5, 5) != layer().block_key(5, 5)


def test_a_bias_behind_the_pool_needs_its_convolution():
    biased = TailSpec(features=48, features_bias=True, num_classes=10).block_key(16, 4, 4)
    plain = TailSpec(features=48, num_classes=10).block_key(16, 4, 4)
    assert biased.params() - plain.params() == 48
    with pytest.raises(ValidationError, match='since features is 0'):
        TailSpec(features_bias=True, num_classes=10)
