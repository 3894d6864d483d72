import math
import random

import pytest

from prunet_mm.latency import LatencyTable, Validation
from prunet_mm.latency.build import Plan, build_table
from prunet_mm.latency.promise import Promise, Reference, judge, keep, references
from prunet_mm.timing import Settings
from prunet_mm.timing.engine import Protocol
from prunet_mm.timing.journal import Visit
from prunet_mm.timing.samples import Measurement, without_drift

THEN_MS = [4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5]


@pytest.fixture
def known(space):
    return [Reference(space.largest(), ms) for ms in THEN_MS]


def run(network_ms, slowness=lambda number: 1.0, noise=0.0, waited=0.0, rounds=12, seed=0):
    """Samples of a network (label 0) and of the references, round by round."""
    rng = random.Random(seed)
    visits = []
    for number in range(rounds):
        for label, usual_ms in enumerate([network_ms, *THEN_MS]):
            ms = usual_ms * slowness(number) * rng.lognormvariate(0, noise)
            visits.append(Visit(0, number, label, 0.1, [label], [[ms]] * 2, [], waited))
    return [Measurement(visits)] * 2


def test_a_slower_machine_is_told_from_a_slower_network(known):
    (promise,) = judge(*run(5.2, slowness=lambda number: 1.3), [5.2], known)
    assert promise.measured_ms == pytest.approx(1.3 * 5.2)
    assert promise.state == pytest.approx(1.3)
    assert promise.at_table_state_ms == pytest.approx(5.2)
    assert not promise.broken(5.3)


def test_a_machine_that_drifts_while_it_is_measured_changes_nothing(known):
    (promise,) = judge(*run(5.2, slowness=lambda number: 1 + number / 12), [5.2], known)
    assert promise.at_table_state_ms == pytest.approx(5.2)
    assert promise.interval_ms == pytest.approx((5.2, 5.2))


def test_a_network_that_the_table_misjudges_is_found(known):
    (promise,) = judge(*run(5.2, slowness=lambda number: 0.8, noise=0.003), [5.8], known)
    assert promise.factor == pytest.approx(5.2 / 5.8, rel=0.01)
    assert promise.broken(5.8)
    assert any('the table errs' in sentence for sentence in promise.sentences(5.8))


def test_a_network_surely_above_its_budget_breaks_it_however_near_the_prediction(known):
    (promise,) = judge(*run(5.2, noise=0.003), [5.12], known)
    assert not promise.broken(5.2)
    assert promise.broken(5.12)


def test_noise_alone_breaks_no_promise(known):
    for seconds_ms in (5.1, 5.3):
        (promise,) = judge(*run(seconds_ms, noise=0.2), [5.2], known)
        assert not promise.broken(5.2)


def test_the_interval_has_the_latency_in_it_in_nineteen_of_twenty_runs(known):
    """The network's own noise, which all references see alike, is in it, too."""
    held = 0
    for seed in range(200):
        (promise,) = judge(*run(5.2, noise=0.05, seed=seed), [5.2], known)
        low, high = promise.interval_ms
        held += low <= 5.2 <= high
    assert 180 <= held <= 199


def test_drift_within_a_round_is_divided_out_by_what_stands_between(known):
    visits = []
    for number in range(60):
        labels = list(range(1 + len(THEN_MS)))
        random.Random(number).shuffle(labels)
        for turn, label in enumerate(labels):
            slowness = 1.5 + math.sin((turn + len(labels) * number) / 60)
            ms = [5.2, *THEN_MS][label] * slowness
            visits.append(Visit(0, number, turn, 0.1, [label], [[ms]] * 2, [slowness] * 2, 0.0))
    found = Measurement(visits)
    (steady,) = judge(found, without_drift(visits), [5.2], known)
    (drifting,) = judge(found, found, [5.2], known)
    widths = [high - low for low, high in (steady.interval_ms, drifting.interval_ms)]
    assert widths[0] < widths[1] / 3
    assert steady.at_table_state_ms == pytest.approx(5.2, rel=0.01)


def test_networks_that_only_the_table_knows_count_where_there_are_no_others(known, space):
    wrong = Reference(space.largest(), 100.0, measured=False)
    found = run(5.2)
    (promise,) = judge(*found, [5.2], [*known[:-1], wrong])
    assert promise.state == pytest.approx(1.0)
    guessed = [Reference(one.spec, one.then_ms, measured=False) for one in known]
    (promise,) = judge(*found, [5.2], guessed)
    assert promise.at_table_state_ms == pytest.approx(5.2)


def test_a_busy_machine_is_named(known):
    (promise,) = judge(*run(5.2, waited=0.4), [5.2], known)
    assert 'It waited for a core 40% of its time' in promise.sentences(5.2)[-1]


def test_it_is_plain_json_also_where_little_is_known(known):
    (promise,) = judge(*run(5.2, rounds=5), [5.2], known)
    data = promise.to_dict()
    assert data['interval_ms'] == [None, None]
    assert data['at_table_state_ms'] == pytest.approx(5.2)
    assert not Promise(**(data | dict(interval_ms=promise.interval_ms))).broken(5.2)


@pytest.fixture
def small(space):
    """A table of this machine with networks, by which the space is measured at once."""
    plan = Plan(space, Settings(batch=1), validate=12)
    return build_table(plan, Protocol(passes=2, min_rounds=2, max_seconds=0.01))


def test_references_are_the_tables_networks_around_a_latency_and_the_slowest(
    small, space, tmp_path
):
    small.save(tmp_path / 'table.json')
    loaded = LatencyTable.load(tmp_path / 'table.json')
    assert loaded.to_dict() == small.to_dict()
    near_ms = sorted(small.validation.measured_ms)[3]
    *ours, slowest = references(loaded, space, near_ms)
    assert {one.then_ms for one in ours} <= set(small.validation.measured_ms)
    assert near_ms in {one.then_ms for one in ours}
    assert all(one.measured for one in ours) and not slowest.measured
    assert slowest.then_ms == max(
        small.predict_ms(spec) for spec in (slowest.spec, space.largest(), space.smallest())
    )


def test_a_table_of_before_has_random_references(small, space):
    bare = Validation(fitted_on=1, predicted_ms=[1.0], measured_ms=[1.1])
    old = small.model_copy(update=dict(validation=bare))
    found = references(old, space, 1.0)
    assert len(found) == 16
    assert not any(one.measured for one in found)


def test_a_network_is_measured_in_turn_with_its_references(small, space):
    spec = space.smallest()
    specs = [spec, space.largest()]
    ours, other = keep(small, space, specs, 'cpu', list(map(small.predict_ms, specs)), 0.01)
    assert ours.measured_ms > 0 and other.measured_ms > 0
    assert ours.at_table_state_ms == pytest.approx(ours.measured_ms / ours.state)
    assert ours.samples >= 8
