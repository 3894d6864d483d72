import random

import pytest

from prunet_mm.timing import Settings
from prunet_mm.timing.engine import (
    CpuStopwatch,
    CudaStopwatch,
    Protocol,
    Stop,
    Target,
    Waiting,
    deployed,
    measure,
)
from prunet_mm.timing.journal import Journal
from prunet_mm.timing.samples import Measurement, without_drift


class FakeClock:
    """Time that passes only where a step says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log = []

    def __call__(self) -> float:
        return self.now

    def step(self, label, milliseconds):
        """A step that takes ``milliseconds()`` and passes its input on."""

        def run(x):
            self.now += milliseconds() / 1e3
            self.log.append((label, x))
            return x

        return run


@pytest.fixture
def clock():
    return FakeClock()


def visit(clock, stops, protocol=None, **options):
    """Measure these stops, of which some may go meanwhile; returns the visits."""
    options = dict(protocol=protocol or Protocol(), stopwatch=CpuStopwatch(1, clock)) | options
    return measure(lambda number: list(stops), clock=clock, **options)


def run(clock, stops, **protocol):
    protocol = Protocol(**(dict(min_rounds=2, max_seconds=1.0, precision=0.0) | protocol))
    return Measurement(visit(clock, stops, protocol))


def one(clock, label, milliseconds, inputs=(0,)):
    return Stop([label], lambda: Target([clock.step(label, milliseconds)], inputs))


def test_median_and_spread_are_those_of_the_known_distribution(clock):
    rng = random.Random(0)
    result = run(clock, [one(clock, 'a', lambda: rng.uniform(1, 3))], max_seconds=5.0)
    timing = result.timing('a')
    assert timing.latency_ms == pytest.approx(2.0, rel=0.02)
    assert timing.iqr_ms == pytest.approx(1.0, rel=0.1)
    assert timing.samples > 1500


def test_outliers_do_not_move_the_median(clock):
    rng = random.Random(0)
    result = run(clock, [one(clock, 'a', lambda: 1000 if rng.random() < 0.2 else 2)])
    assert result.timing('a').latency_ms == pytest.approx(2.0)


def test_steps_of_a_chain_get_a_time_each(clock):
    steps = [clock.step(label, lambda ms=ms: ms) for label, ms in (('a', 1), ('b', 4), ('a', 3))]
    result = run(clock, [Stop('aba', lambda: Target(steps, [0]))])
    assert result.timing('b').latency_ms == pytest.approx(4.0)
    assert result.timing('a').latency_ms == pytest.approx(2.0)
    assert result.timing('a').samples == 2 * result.timing('b').samples


def test_a_machine_that_slows_down_spoils_no_comparison(clock):
    def drifting(base):
        return lambda: base * (1 + clock.now)  # at the end twice as slow as at the start

    targets = [one(clock, base, drifting(base)) for base in (1.0, 1.5)]
    result = run(clock, targets, max_seconds=1.0)
    ratio = result.timing(1.5).latency_ms / result.timing(1.0).latency_ms
    assert ratio == pytest.approx(1.5, rel=0.01)


def test_targets_take_turns_in_changing_order(clock):
    run(clock, [one(clock, label, lambda: 1) for label in 'abcd'], min_rounds=12, max_seconds=0.1)
    visits = [label for label, _ in clock.log]
    visits = visits[len(visits) % 20 :: 5]  # one of the five passes of each visit
    rounds = [visits[start : start + 4] for start in range(0, len(visits), 4)]
    assert all(sorted(order) == list('abcd') for order in rounds)
    assert len(set(map(tuple, rounds))) > 3


def test_inputs_are_used_in_turn(clock):
    run(clock, [one(clock, 'a', lambda: 1, inputs=[1, 2, 3, 4])])
    timed = [x for _, x in clock.log][-4:]
    assert sorted(timed) == [1, 2, 3, 4]


def test_the_first_pass_of_a_visit_does_not_count(clock):
    calls = []

    def slow_after_another_target():
        calls.append(clock.log[-1][0] if clock.log else None)
        return 1 if calls[-1] == 'a' else 50

    result = run(clock, [one(clock, 'a', slow_after_another_target), one(clock, 'b', lambda: 1)])
    assert result.timing('a').latency_ms == pytest.approx(1.0)
    assert result.timing('a').iqr_ms == pytest.approx(0.0)


def test_stops_when_every_median_is_known_well_enough(clock):
    rng = random.Random(0)
    targets = [one(clock, 'a', lambda: 1.0), one(clock, 'b', lambda: rng.uniform(1, 3))]
    result = run(clock, targets, precision=0.02, max_seconds=1000.0)
    assert result.uncertainty <= 0.02
    assert clock.now < 100


def test_the_interval_at_which_it_stops_has_the_median_in_it_in_nine_of_ten_runs():
    """Not in 95 of 100, since it stops when the interval happens to be narrow."""
    hits = 0
    for seed in range(200):
        clock, rng = FakeClock(), random.Random(seed)
        target = one(clock, 'a', lambda rng=rng: rng.lognormvariate(0, 0.05))
        low, high = run(clock, [target], precision=0.01, max_seconds=1000.0).interval_ms('a')
        assert high - low <= 2 * 0.01 * high
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 200 <= 0.97


def test_stops_in_time_where_precision_cannot_be_reached(clock):
    rng = random.Random(0)
    run(clock, [one(clock, 'a', lambda: rng.uniform(1, 3))], max_seconds=0.5)
    assert 0.5 <= clock.now < 0.56  # with the warm-up


def test_every_target_is_visited_however_little_time_there_is(clock):
    targets = [one(clock, label, lambda: 1000) for label in 'ab']
    result = run(clock, targets, min_rounds=3, passes=4, max_seconds=0.001)
    assert [result.timing(label).samples for label in 'ab'] == [3, 3]


def test_progress_rises_to_one(clock):
    done = []
    stops = [one(clock, 'a', lambda: 1), one(clock, 'b', lambda: 2)]
    visit(clock, stops, Protocol(precision=0.0, max_seconds=0.2), progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 1.0


class SlowStart:
    """Milliseconds of a pass: many at first, 1 in the end."""

    def __init__(self, passes):
        self.left = passes

    def __call__(self):
        self.left -= 1
        return max(1.0, self.left)


def test_passes_before_it_is_stable_do_not_count(clock):
    slow = SlowStart(passes=12)
    result = run(clock, [one(clock, 'a', slow)], min_rounds=3, max_seconds=1.0)
    assert slow.left < 0
    assert set(map(round, result.samples_ms('a'))) == {1}


def test_the_warm_up_of_what_never_gets_stable_ends(clock):
    ever_faster = iter(0.9**n for n in range(100_000))
    stops = [one(clock, 'a', lambda: 1e3 * next(ever_faster))]
    visit(clock, stops, Protocol(max_seconds=10.0, min_rounds=2), enough=lambda visits: True)
    assert len(clock.log) < 100


def test_a_drift_widens_the_interval_and_leaves_the_ratio_sharp(clock):
    def drifting(base):
        return lambda: base * (1 + clock.now)

    targets = [one(clock, base, drifting(base)) for base in (1.0, 1.5)]
    result = run(clock, targets, max_seconds=1.0)
    low, high = result.interval_ms(1.5)
    assert (high - low) / low > 0.05
    ratio, low, high = result.ratio(1.5, 1.0)
    assert low <= ratio <= high
    assert ratio == pytest.approx(1.5, rel=0.01)
    assert (high - low) / low < 0.02


def test_a_mood_of_the_machine_is_not_taken_for_many_samples(clock):
    """Rounds differ by 10 %, the passes of a visit do not at all."""
    rng, mood = random.Random(0), {}

    def moody():
        mood.setdefault(len(clock.log) // 5, rng.gauss(10, 1))
        return mood[len(clock.log) // 5]

    result = run(clock, [one(clock, 'a', moody)], min_rounds=20, max_seconds=0.01)
    assert 0.02 < result.uncertainty < 0.1


def test_a_target_that_fails_leaves_the_others_alone(clock):
    def fails_in_the_third_round():
        if clock.now > 0.03:
            raise MemoryError('no more')
        return 1

    stops = [one(clock, 'bad', fails_in_the_third_round), one(clock, 'good', lambda: 1)]
    gone = []

    def failed(stop, error):
        stops.remove(stop)
        gone.append((stop.labels, str(error)))

    protocol = Protocol(min_rounds=20, max_seconds=0.1, precision=0.0)
    visits = visit(clock, stops, protocol, failed=failed)
    assert gone == [(['bad'], 'no more')]
    assert Measurement(visits).timing('good').samples == 80


@pytest.mark.parametrize('passes', [0, 20, 21, 22, 30, 31])
def test_when_the_last_one_fails_it_ends(clock, passes):
    """By then enough rounds may be over to ask how well the medians are known."""

    def fails():
        if len(clock.log) >= passes:
            raise MemoryError
        return 1

    stops = [one(clock, 'bad', fails)]
    protocol = Protocol(min_rounds=3, precision=0.0)
    visit(clock, stops, protocol, failed=lambda stop, error: stops.remove(stop))
    assert not stops


def test_an_error_that_nobody_takes_is_raised(clock):
    def fails():
        raise RuntimeError('on purpose')

    with pytest.raises(RuntimeError, match='on purpose'):
        visit(clock, [one(clock, 'bad', fails)])


def test_what_was_measured_survives_an_interruption(clock):
    def interrupted():
        if clock.now > 0.02:
            raise KeyboardInterrupt
        return 1

    journal = Journal(None, {})
    with pytest.raises(KeyboardInterrupt):
        visit(clock, [one(clock, 'a', interrupted)], journal=journal)
    assert Measurement(journal.visits).timing('a').samples > 10


def test_what_is_enough_can_be_said_by_others(clock):
    visits = visit(clock, [one(clock, 'a', lambda: 1)], enough=lambda visits: visits[-1].round >= 9)
    assert 10 <= len(visits) < 20


def test_slow_targets_are_passed_less_often(clock):
    result = run(clock, [one(clock, 'a', lambda: 1000)], min_rounds=3, passes=4, max_seconds=5.0)
    assert result.timing('a').samples == 3


def test_fast_targets_are_passed_more_often(clock):
    targets = [one(clock, 'fast', lambda: 0.5), one(clock, 'slow', lambda: 10)]
    result = run(clock, targets, min_rounds=5, visit_ms=20.0, precision=1.0)
    assert [result.timing(label).samples for label in ('fast', 'slow')] == [6 * 39, 6 * 4]


def test_a_drifting_machine_is_taken_out_where_there_is_an_anchor(clock):
    def drifting(base):
        return lambda: base * (1 + clock.now / 20)  # at the end twice as slow as at the start

    anchor = Target([clock.step('anchor', drifting(0.5))], [0])
    protocol = Protocol(min_rounds=2, max_seconds=20.0, precision=0.0)
    visits = visit(clock, [one(clock, 'a', drifting(2.0))], protocol, anchor=lambda: anchor)
    raw, clean = Measurement(visits).timing('a'), without_drift(visits).timing('a')
    assert raw.iqr_ms / raw.latency_ms > 0.2
    assert clean.iqr_ms / clean.latency_ms < 0.05


def test_one_thread_is_timed_by_what_it_runs_not_by_what_it_waits():
    import time

    def wait(x):
        time.sleep(0.05)
        return x

    assert CpuStopwatch(threads=1).laps_ms([wait], 0)[0] < 25
    assert CpuStopwatch(threads=2).laps_ms([wait], 0)[0] >= 50


def test_threads_are_set_and_put_back():
    import torch

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), deployed(Settings(threads=before + 1)):
        assert torch.get_num_threads() == before + 1
        assert torch.is_inference_mode_enabled()
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


@pytest.fixture
def events(clock, monkeypatch):
    """Events of a GPU on whose clock the steps' time passes; returns what happens, in order."""
    import torch

    happened = []

    class Event:
        def __init__(self, enable_timing=False):
            assert enable_timing

        def record(self):
            happened.append('event')
            self.now = clock.now

        def elapsed_time(self, end):
            assert happened[-1] == 'idle', 'asked before the GPU was done'
            return 1e3 * (end.now - self.now)

    def idle(device):
        assert device == 'cuda:1'
        happened.append('idle')

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'synchronize', idle)
    return happened


@pytest.mark.parametrize('output', ['tensor', 'tuple', 'list', 'dict'])
def test_a_gpu_is_idle_when_its_first_event_is_recorded_and_done_when_it_is_asked(
    clock, events, output
):
    """Whatever a step returns: a detector's backbone gives a tuple of maps."""
    import torch

    x = torch.zeros(1)
    made = dict(tensor=x, tuple=(x, x), list=[x], dict=dict(a=x))[output]
    last = clock.step('b', lambda: 4)
    steps = [clock.step('a', lambda: 1), lambda x: last(x) is None or made]
    laps_ms = CudaStopwatch('cuda:1').laps_ms(steps, x)
    assert laps_ms == pytest.approx([1.0, 4.0])
    assert events == ['idle', 'event', 'event', 'event', 'idle']


def test_waiting_for_a_core_is_seen(tmp_path):
    for thread, times in dict(one='1000 500 3', other='2000 0 1').items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / 'schedstat').write_text(times)
    waiting = Waiting(tmp_path)
    assert waiting.share() == 0.0
    (tmp_path / 'one/schedstat').write_text('1600 800 5')
    (tmp_path / 'other/schedstat').write_text('2100 0 2')
    assert waiting.share() == 0.3
    assert Waiting(tmp_path / 'none').share() == 0.0  # another system
