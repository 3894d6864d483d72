import pytest

from prunet_mm.timing.engine import CpuStopwatch, Protocol, Stop, Target, measure

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

        return Target([run], [1, 2, 3, 4])

    stops = [Stop([index], lambda i=index: target(i, 1 + i)) for index in range(2)]
    visits = measure(
        lambda number: stops,
        PROTOCOL,
        CpuStopwatch(1, lambda: now[0]),
        anchor=lambda: target('anchor', 5),
        clock=lambda: now[0],
    )
    return visits, log[-3 * 2 * 9 :]


def test_every_visit_has_its_times_and_the_anchors(visited):
    visits, _ = visited
    assert [(visit.round, visit.index) for visit in visits] == [
        (number, index) for number in range(3) for index in range(2)
    ]
    assert {visit.labels[0] for visit in visits if visit.index == 0} == {0, 1}  # shuffled
    for visit in visits:
        (label,) = visit.labels
        assert visit.laps_ms == [pytest.approx([1 + label])] * 4
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
