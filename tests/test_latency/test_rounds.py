import pytest

from prunet_mm.latency.journal import Journal
from prunet_mm.latency.measure import CpuStopwatch, Protocol, Target
from prunet_mm.latency.rounds import Stop, measure_rounds

PROTOCOL = Protocol(passes=4, min_rounds=3, precision=1.0, max_seconds=0.001)


@pytest.fixture
def visited():
    """Measure two targets and the anchor; returns the visits, and all labels with their inputs."""
    now, log = [0.0], []

    def target(label, milliseconds):
        def run(x):
            now[0] += milliseconds / 1e3
            log.append((label, x))
            return x

        return Target([(label, run)], [1, 2, 3, 4])

    stops = [Stop([index], lambda i=index: target(i, 1 + i)) for index in range(2)]
    journal = Journal(None, {})
    measure_rounds(
        lambda number: stops,
        lambda: target('anchor', 5),
        journal,
        PROTOCOL,
        CpuStopwatch(1, lambda: now[0]),
        clock=lambda: now[0],
    )
    return journal.visits, log[-3 * 2 * 9 :]


def test_every_visit_has_its_times_and_the_anchors(visited):
    visits, _ = visited
    assert [(visit.round, visit.index) for visit in visits] == [
        (number, index) for number in range(3) for index in range(2)
    ]
    for visit in visits:
        assert visit.labels == [visit.index]
        assert visit.laps_ms == [pytest.approx([1 + visit.index])] * 4
        assert visit.anchor_ms == pytest.approx([5.0] * 4)


def test_a_pass_for_nothing_then_the_anchor_behind_each_one(visited):
    _, log = visited
    for start in range(0, len(log), 9):
        label = log[start][0]
        assert [name for name, _ in log[start : start + 9]] == [label] * 2 + [
            *('anchor', label) * 3,
            'anchor',
        ]


def test_inputs_are_used_in_turn(visited):
    _, log = visited
    for start in range(0, len(log), 9):
        first, *timed = log[start : start + 9]
        for name in (first[0], 'anchor'):
            assert sorted(x for label, x in timed if label == name) == [1, 2, 3, 4]
    assert len({x for _, x in log[::9]}) > 1
