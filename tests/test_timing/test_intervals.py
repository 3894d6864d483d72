import math
import random

import pytest

from prunet_mm.timing.samples import median_interval, relative_half_width


@pytest.mark.parametrize('count', [6, 9, 25, 100, 301])
@pytest.mark.parametrize('draw', ['gauss', 'lognormvariate', 'uniform'])
def test_the_interval_has_the_median_in_it_in_95_of_100_cases(draw, count):
    rng = random.Random(count)
    median = dict(gauss=0.0, lognormvariate=1.0, uniform=0.5)[draw]
    hits = 0
    for _ in range(1000):
        low, high = median_interval([getattr(rng, draw)(0, 1) for _ in range(count)])
        hits += low <= median <= high
    assert 935 <= hits <= 990


def test_few_values_say_nothing():
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert relative_half_width([1.0] * 5) == math.inf


def test_outliers_do_not_widen_it():
    values = [1.0, 1.1, 1.2, 1.3] * 10
    assert median_interval([*values, 1e6, 1e6])[1] <= 1.3


def test_it_narrows_with_the_root_of_the_number():
    rng = random.Random(0)
    few, many = ([rng.gauss(10, 1) for _ in range(count)] for count in (100, 10_000))
    assert 5 < relative_half_width(few) / relative_half_width(many) < 20
