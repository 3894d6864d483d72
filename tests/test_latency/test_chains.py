import random

from prunet_mm.latency.chains import anchor_block, blocks, places, random_chains


def test_all_widths_are_all_blocks_of_the_space(space):
    assert set(blocks(places(space))) == set(space.block_keys())


def test_a_round_has_every_block_in_networks_that_fit_together(space):
    chains = list(random_chains(places(space), random.Random(0)))
    assert {key for chain in chains for key in chain} == set(space.block_keys())
    for chain in chains:
        for before, after in zip(chain, chain[1:], strict=False):
            assert before.out_channels == after.in_channels
            assert before.out_size == (after.height, after.width)
    assert {len(chain) for chain in chains} == {3, 4}  # stem, one or two layers, tail


def test_the_anchor_is_of_medium_size(space):
    macs = sorted(key.macs() for key in space.block_keys())
    assert anchor_block(space).macs() == macs[len(macs) // 2]
