import random

import numpy as np
import pytest

from prunet_mm.timing.journal import Visit
from prunet_mm.timing.samples import Measurement, drifts, without_drift


def visits(speed, count=400, session=lambda index: 0, noise=0.0, seed=0):
    """Visits to one label of 3 ms beside an anchor of 2 ms, on a machine of some slowness."""
    rng = random.Random(seed)

    def times(ms, index):
        return [ms * speed(index) * rng.lognormvariate(0, noise) for _ in range(4)]

    return [
        Visit(
            session(index),
            index // 100,
            index % 100,
            0.1,
            [7],
            [[ms] for ms in times(3.0, index)],
            times(2.0, index),
        )
        for index in range(count)
    ]


def test_a_steady_machine_has_no_drift():
    noisy = visits(lambda index: 1.0, noise=0.1)
    assert drifts(noisy) == pytest.approx(np.ones(400), abs=0.03)


def test_a_slow_drift_is_divided_out():
    measured = visits(lambda index: 1 + index / 400, noise=0.05)  # twice as slow in the end
    timing = without_drift(measured).timing(7)
    assert timing.iqr_ms / timing.latency_ms == pytest.approx(1.35 * 0.05, rel=0.4)
    assert timing.latency_ms / 3 == pytest.approx(1.5, rel=0.02)  # its middle is the measure


def test_a_session_on_a_slower_machine_is_as_fast_as_the_others():
    measured = visits(
        lambda index: 1.3 if index >= 300 else 1.0, session=lambda index: index // 300
    )
    samples = without_drift(measured)
    assert samples.timing(7).latency_ms == pytest.approx(3.0)
    assert samples.timing(7).iqr_ms == pytest.approx(0.0, abs=1e-9)


def test_a_short_session_is_compared_by_all_its_visits():
    measured = visits(
        lambda index: 1.3 if index >= 398 else 1.0, session=lambda index: index // 398
    )
    assert drifts(measured)[-2:] == pytest.approx([1.3, 1.3])


def test_an_anchor_that_is_disturbed_now_and_then_disturbs_nothing():
    rng = random.Random(0)
    measured = [
        visit._replace(anchor_ms=[2.0, 2.0, 2.0, 50.0]) if rng.random() < 0.3 else visit
        for visit in visits(lambda index: 1.0)
    ]
    assert drifts(measured) == pytest.approx(np.ones(400))


def test_rounds_are_kept_apart():
    samples = without_drift(visits(lambda index: 1.0))
    assert samples.rounds == 4
    assert samples.medians_ms(7).keys() == {0, 1, 2, 3}


def test_the_speed_of_rounds_is_that_of_all_labels():
    slow = visits(lambda index: 1.2 if index // 100 == 2 else 1.0)
    assert Measurement(slow).speeds() == pytest.approx([1.0, 1.0, 1.2, 1.0])


def test_what_a_label_waited_for_a_core_is_the_mean_of_its_visits():
    busy = [visit._replace(waited=0.5 * (n % 2)) for n, visit in enumerate(visits(lambda n: 1.0))]
    assert Measurement(busy).waited(7) == pytest.approx(0.25)
