import pytest

from prunet_mm.errors import SpecError


def test_positions_follow_the_image_through_the_network(tiny):
    positions = tiny.positions()
    assert [one.name for one in positions] == [
        'stage1.layer1',
        'stage1.layer2',
        'stage2.layer1',
        'stage2.layer2',
        'stage2.layer3',
        'stage3.layer1',
    ]
    assert [one.skippable for one in positions] == [False, True, False, True, True, False]
    assert [one.in_channels for one in positions] == [4, 4, 4, 8, 8, 8]
    assert [one.out_channels for one in positions] == [4, 4, 8, 8, 8, 8]
    assert [one.stride for one in positions] == [1, 1, 2, 1, 1, 2]
    assert [(one.height, one.width) for one in positions] == [
        (size, size) for size in (8, 8, 8, 4, 4, 4)
    ]


def test_candidates_are_ops_by_kernels_with_widths_up_to_the_expansion(tiny):
    first, last = tiny.positions()[2], tiny.positions()[-1]
    assert [one.name for one in first.candidates] == ['conv_k3', 'irb_k3']
    assert first.candidates[0].widths == ()
    assert first.candidates[0].se == 0
    assert first.candidates[1].widths == (8,)
    assert first.candidates[1].se == 1
    assert [one.name for one in last.candidates] == ['irb_k3', 'irb_k5']
    assert last.candidates[1].widths == (4, 8, 12, 16)
    assert last.candidates[1].act == 'swish'
    assert last.candidates[1].se == 0


def test_a_position_makes_only_widths_on_its_grid(tiny):
    last = tiny.positions()[-1]
    assert last.layer(last.candidates[0], 12).hidden == 12
    for hidden in (0, 6, 20):
        with pytest.raises(SpecError, match='stage3.layer1, irb_k3: hidden: found .*4 to 16 in st'):
            last.layer(last.candidates[0], hidden)
    conv = tiny.positions()[0]
    with pytest.raises(SpecError, match='found 4, expected 0'):
        conv.layer(conv.candidates[0], 4)
