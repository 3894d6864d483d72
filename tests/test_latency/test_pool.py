import itertools

import pytest
import torch

from prunet_mm.latency import pool
from prunet_mm.latency.pool import Pool
from prunet_mm.timing import Settings


@pytest.fixture
def ready():
    return Pool(Settings(batch=2))


def test_inputs_are_random_and_none_is_like_another(ready, irb):
    inputs = ready.inputs(irb)
    assert [x.shape for x in inputs] == [(2, 4, 8, 8)] * 4
    assert all(0.5 < x.std() < 2 for x in inputs)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(inputs, 2))


def test_what_fits_into_half_of_the_memory_is_prepared_once(irb, monkeypatch):
    monkeypatch.setattr(pool, 'free_bytes', lambda device: 2 * 1000)
    ready, wide = Pool(Settings()), irb._replace(hidden=100)

    def step(key):
        (found,) = ready.target([key]).steps
        return found

    assert step(irb) is step(irb)
    assert step(wide) is not step(wide)
