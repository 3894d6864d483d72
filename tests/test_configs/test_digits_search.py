"""The digits space is worth searching: hidden widths cost something on this very machine."""

from pathlib import Path

import pytest
from mmengine.config import Config

from prunet_mm.latency.build import Plan, build_table
from prunet_mm.latency.measure import Protocol
from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def config():
    return Config.fromfile(ROOT / 'configs/search/prunet_digits.py')


@pytest.fixture(scope='module')
def space(config):
    return SearchSpace.from_dict(config.space)


def test_the_widest_hidden_width_costs_at_least_twice_the_narrowest(config, space):
    latency = config.model.latency
    plan = Plan(space, latency.device, batch=latency.batch, widths=0, validate=0)
    table = build_table(plan, Protocol(min_rounds=3, max_seconds=15))
    ratios = {}
    for position in space.positions():
        for candidate in position.candidates:
            low, high = (
                table.block_ms(
                    position.layer(candidate, width).block_key(position.height, position.width)
                )
                for width in (candidate.widths[0], candidate.widths[-1])
            )
            ratios[position.name, candidate.name] = high / low
    assert min(ratios.values()) >= 2, ratios


def test_the_default_network_lies_in_the_space(space):
    spec = NetworkSpec.load(ROOT / 'configs/cls/prunet_digits.json')
    assert space.why_not(spec) is None
