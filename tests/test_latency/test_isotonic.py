import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from prunet_mm.latency.isotonic import isotonic


@pytest.mark.parametrize('seed', range(20))
def test_equals_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=rng.integers(1, 60)).round(seed % 3) + np.linspace(0, seed / 4, 1)
    np.testing.assert_allclose(isotonic(values), isotonic_regression(values), atol=1e-12)


def test_never_falls_and_keeps_the_sum():
    values = np.random.default_rng(0).normal(size=200) + np.arange(200) / 50
    fitted = isotonic(values)
    assert (np.diff(fitted) >= 0).all()
    assert fitted.sum() == pytest.approx(values.sum())


def test_leaves_what_rises_as_it_is():
    assert isotonic([1, 2, 2, 5]).tolist() == [1, 2, 2, 5]


def test_of_nothing_is_nothing():
    assert isotonic([]).shape == (0,)
