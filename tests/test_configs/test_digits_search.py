"""The digits space is worth searching: hidden widths cost something."""

from pathlib import Path

import pytest
from mmengine.config import Config

from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def space():
    return SearchSpace.from_dict(Config.fromfile(ROOT / 'configs/search/prunet_digits.py').space)


def test_the_widest_hidden_width_computes_many_times_the_narrowest(space):
    """What that takes on a device is for its latency table to say."""
    for position in space.positions():
        for candidate in position.candidates:
            low, high = (
                position.layer(candidate, width).macs(position.height, position.width)
                for width in (candidate.widths[0], candidate.widths[-1])
            )
            assert high >= 10 * low, (position.name, candidate.name)


def test_the_default_network_lies_in_the_space(space):
    spec = NetworkSpec.load(ROOT / 'configs/cls/prunet_digits.json')
    assert space.why_not(spec) is None
