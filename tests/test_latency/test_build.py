import random

import numpy as np
import pytest

from prunet_mm.latency import LatencyTable
from prunet_mm.latency import build as module
from prunet_mm.latency.build import build_table, places, spread
from prunet_mm.latency.measure import Protocol

QUICK = Protocol(passes=2, min_rounds=2, max_seconds=0.01)


@pytest.fixture
def quick_table(space) -> LatencyTable:
    return build_table(space, batch=2, most_widths=2, validate=4, protocol=QUICK)[0]


def test_the_table_serves_every_block_of_the_space(space, quick_table):
    quick_table.require(space.block_keys())
    assert quick_table.predict_ms(space.largest()) > 0


def test_the_table_says_what_it_is_of(quick_table):
    from prunet_mm.latency.device import device_name

    assert quick_table.kind == 'measured'
    assert quick_table.device == device_name('cpu')
    assert (quick_table.batch, quick_table.threads, quick_table.backend) == (2, 1, 'eager')
    assert 'torch' in quick_table.software
    assert all(entry.samples >= 4 for entry in quick_table.entries)


def test_the_fit_is_tested_on_other_networks(quick_table):
    assert quick_table.validation.fitted_on == 2
    assert len(quick_table.validation.measured_ms) == 2


def test_the_fit_finds_overhead_and_scale():
    predicted_ms = np.linspace(1, 8, 50)
    overhead_ms, scale = module._fit(predicted_ms, 1.2 * predicted_ms - 0.25)
    assert overhead_ms == pytest.approx(-0.25, abs=0.02)
    assert scale == pytest.approx(1.2, abs=0.01)


def test_the_fit_stays_put_without_evidence():
    overhead_ms, scale = module._fit(np.array([2.0, 2.01]), np.array([2.01, 2.0]))
    assert abs(overhead_ms) < 0.01
    assert scale == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('seed', range(50))
def test_no_measurement_however_bad_makes_a_table_that_predicts_nothing(seed):
    rng = np.random.default_rng(seed)
    predicted_ms, measured_ms = rng.lognormal(sigma=2, size=(2, rng.integers(2, 9)))
    half = len(measured_ms) // 2
    overhead_ms, scale = module._fit(predicted_ms, measured_ms[:half])
    assert scale > 0
    assert (overhead_ms + scale * predicted_ms > 0).all()


def test_without_validation_nothing_is_fitted(space):
    table, _ = build_table(space, batch=2, validate=0, protocol=QUICK)
    assert table.validation is None
    assert (table.network_overhead_ms, table.network_scale) == (0.0, 1.0)


def test_by_default_ends_and_some_widths_between_are_measured():
    widths = tuple(range(8, 385, 8))
    some = spread(widths, 10)
    assert (len(some), some[0], some[-1]) == (10, 8, 384)
    assert set(some) <= set(widths)


@pytest.mark.parametrize('widths', [(), (8,), (8, 16, 24)])
def test_few_widths_are_all_measured(widths):
    assert spread(widths, 3) == widths
    assert spread(widths, None) == widths


def test_all_widths_are_all_blocks_of_the_space(space):
    found = {key for stage in places(space, None) for place in stage for key in place}
    assert found == set(space.block_keys())


def test_a_round_has_every_block_in_networks_that_fit_together(space):
    stages = places(space, None)
    chains = list(module._chains(stages, random.Random(0)))
    assert {key for chain in chains for key in chain} == set(space.block_keys())
    for chain in chains:
        for before, after in zip(chain, chain[1:], strict=False):
            assert before.out_channels == after.in_channels
            assert before.out_size == (after.height, after.width)
    assert {len(chain) for chain in chains} == {3, 4}  # stem, one or two layers, tail


def test_a_space_without_a_tail_is_measured(space):
    space = space.model_copy(update=dict(tail=None))
    table, _ = build_table(space, batch=1, most_widths=2, validate=2, protocol=QUICK)
    assert not any(entry.op == 'tail' for entry in table.entries)


def test_blocks_that_do_not_fit_into_memory_together_are_built_again(space, monkeypatch):
    monkeypatch.setattr(module, 'POOL_BYTES', 4000)
    table, _ = build_table(space, batch=1, validate=0, protocol=QUICK)
    table.require(space.block_keys())
