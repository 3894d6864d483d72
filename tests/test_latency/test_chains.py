import random

import pytest

from prunet_mm.latency.chains import MOST, anchor_block, blocks, places, random_chains, spread


def test_by_default_ends_and_most_widths_between_are_measured():
    widths = tuple(range(8, 385, 8))
    some = spread(widths, MOST)
    assert (len(some), some[0], some[-1]) == (39, 8, 384)
    assert set(some) <= set(widths)
    assert max(b - a for a, b in zip(some, some[1:], strict=False)) == 16  # never two left out


@pytest.mark.parametrize('widths', [(), (8,), (8, 16)])
def test_few_widths_are_all_measured(widths):
    assert spread(widths, 0.1) == widths


@pytest.mark.parametrize('count', range(1, 200, 7))
def test_widths_are_spread_without_repetition(count):
    widths = tuple(range(count))
    for part in (0, 0.3, 2 / 3, 0.9):
        assert len(set(spread(widths, part))) == min(count, max(2, -int(-part * count // 1)))
    assert spread(widths, 1) == widths


def test_all_widths_are_all_blocks_of_the_space(space):
    assert set(blocks(places(space, 1))) == set(space.block_keys())


def test_a_round_has_every_block_in_networks_that_fit_together(space):
    chains = list(random_chains(places(space, 1), random.Random(0)))
    assert {key for chain in chains for key in chain} == set(space.block_keys())
    for chain in chains:
        for before, after in zip(chain, chain[1:], strict=False):
            assert before.out_channels == after.in_channels
            assert before.out_size == (after.height, after.width)
    assert {len(chain) for chain in chains} == {3, 4}  # stem, one or two layers, tail


def test_the_anchor_is_of_medium_size(space):
    macs = sorted(key.macs() for key in space.block_keys())
    assert anchor_block(space).macs() == macs[len(macs) // 2]
