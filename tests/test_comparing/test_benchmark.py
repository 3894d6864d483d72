from dataclasses import replace

import pytest
import torch
from torch import nn

from prunet_mm.comparing.benchmark import Benchmark
from prunet_mm.comparing.results import as_text, records
from prunet_mm.comparing.targets import Subject
from prunet_mm.errors import ConfigError
from prunet_mm.timing import Settings
from prunet_mm.timing.backends import BACKENDS
from prunet_mm.timing.backends.torch_backends import Eager
from prunet_mm.timing.engine import Protocol
from prunet_mm.timing.journal import Visit

# Any precision will do after seven rounds.
QUICK = Protocol(passes=2, min_rounds=7, precision=1e3, max_seconds=60.0)


class Faulty(Eager):
    """Eager that does something to what the model returns."""

    def __init_subclass__(cls, does):
        cls.does = staticmethod(does)

    def prepare(self, model, inputs, dtype):
        call = super().prepare(model, inputs, dtype)
        calls = iter(range(1000))
        return lambda x: self.does(call(x), next(calls))


def fails_later(y, call):
    if call >= 5:
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
    return y


def is_unknown(y, call):
    raise NotImplementedError('no kernel for "this"\nand much more')


class Wrong(Faulty, does=lambda y, call: 1.1 * y):
    name = 'wrong'


class NotANumber(Faulty, does=lambda y, call: y / 0 * 0):
    name = 'nan'


class FailsLater(Faulty, does=fails_later):
    name = 'later'


class Unknown(Faulty, does=is_unknown):
    name = 'unknown'


@pytest.fixture(autouse=True)
def faulty(monkeypatch):
    for backend in (Wrong, NotANumber, FailsLater, Unknown):
        monkeypatch.setitem(BACKENDS, backend.name, backend)


@pytest.fixture
def subject():
    return Subject('net', nn.Conv2d(3, 4, 1).eval(), (3, 8, 8), params=16, macs=768)


def compare(subjects, backends=('eager',), batches=(1,)):
    """A benchmark of these."""
    return Benchmark(
        subjects, [Settings(backend=name, batch=batch) for name in backends for batch in batches]
    )


def visits(*samples_ms, waited=0.0):
    """A visit to job 0 per round, in each of which these were its samples."""
    return [
        Visit(0, number, 0, 0.1, [0], [[ms] for ms in laps_ms], [], waited)
        for number, laps_ms in enumerate(samples_ms)
    ]


def rows(bench, precision=0.01):
    return records(bench, precision, dict(device='here'))


def test_subjects_by_backends_by_batches(subject):
    bench = compare([subject, subject], ['eager', 'channels-last'], [1, 2])
    bench.run(QUICK)
    found = rows(bench)
    assert [(row['backend'], row['batch']) for row in found] == [
        ('eager', 1),
        ('eager', 2),
        ('channels-last', 1),
        ('channels-last', 2),
    ] * 2
    for row in found:
        assert (row['samples'], row['rounds']) == (14, 7)
        low, high = row['interval_ms']
        assert low <= row['latency_ms'] <= high
        assert row['params'] == 16
    assert found[0]['ratio'] == found[1]['ratio'] == 1
    low, high = found[7]['ratio_interval']
    assert low <= found[7]['ratio'] <= high


@pytest.mark.parametrize(
    ('backend', 'sentence'),
    [
        ('wrong', 'the output is 10.0% away from that of eager float32, and 1% is what rounding'),
        ('nan', 'the output has NaN'),
        ('later', 'out of memory'),
        ('unknown', 'NotImplementedError: no kernel for "this"'),
    ],
)
def test_what_fails_says_so_and_the_rest_goes_on(subject, backend, sentence):
    bench = compare([subject], ['eager', backend, 'channels-last'])
    bench.run(QUICK)
    good, bad, other = rows(bench)
    assert bad['error'].startswith(sentence)
    assert (bad['kind'], 'latency_ms' in bad, bad['device']) == ('failed', False, 'here')
    assert good['samples'] == other['samples'] == 14
    _, _, line, _, *_ = as_text([good, bad, other], 0.01).splitlines()
    assert sentence in line


def test_where_the_first_row_failed_there_are_no_ratios(subject):
    bench = compare([subject], ['nan', 'eager'])
    bench.run(QUICK)
    assert rows(bench)[1]['ratio'] is None


def test_too_little_memory_for_one_batch(subject):
    bench = compare([subject], batches=[10**10, 1])
    bench.run(QUICK)
    big, small = rows(bench)
    assert big['error'] == 'out of memory when 7152.6 GiB were asked for'
    assert small['samples'] == 14


def test_a_row_says_whether_its_median_is_known(subject):
    bench = compare([subject])
    bench.journal.visits += visits(*([ms, ms] for ms in (1.0, 2.0, 1.1, 1.9, 1.2, 1.8)))
    (row,) = rows(bench)
    assert (row['precise'], row['interval_ms']) == (False, [1.0, 2.0])
    assert '33.3% !' in as_text([row], 0.01)
    assert as_text([row], 0.01).endswith('or too few --max-seconds')
    (row,) = rows(bench, precision=0.5)
    assert row['precise']
    assert '!' not in as_text([row], 0.5)


def test_numbers_of_known_samples(subject):
    bench = compare([subject], batches=[2])
    bench.journal.visits += visits([float(ms) for ms in range(1, 102)])
    (row,) = rows(bench)
    assert (row['latency_ms'], row['mean_ms'], row['iqr_ms']) == (51, 51, 50)
    assert (row['p90_ms'], row['p99_ms'], row['samples']) == (91, 100, 101)
    assert row['images_per_second'] == pytest.approx(2000 / 51)
    assert row['interval_ms'] == [None, None]  # of one round nothing follows


def test_what_was_not_reached_before_an_interruption_says_so(subject):
    bench = compare([subject])
    (row,) = rows(bench)
    assert row['error'] == 'interrupted before it was measured'


def test_a_row_says_that_others_had_its_cores(subject):
    bench = compare([subject])
    bench.journal.visits += visits(*[[1.0, 1.0]] * 7, waited=0.35)
    (row,) = rows(bench)
    assert (row['precise'], row['waited_for_a_core']) == (True, pytest.approx(0.35))
    assert ' 0.0% # ' in as_text([row], 0.01)
    assert 'waited for a core up to 35% of its time' in as_text([row], 0.01).splitlines()[-1]


def test_progress_names_what_is_being_done(subject):
    said = []
    compare([subject]).run(QUICK, lambda done, doing: said.append((done, doing)))
    assert said[0] == (0.0, 'preparing net (eager, batch 1)')
    assert said[-1] == (1.0, 'measuring')


class Counting:
    """What follows a network, and fails when it is told so."""

    candidates = 7

    def __init__(self, fails=False):
        self.fails, self.calls = fails, 0

    def behind(self, call, outputs):
        assert outputs.shape == (1, 4, 8, 8)
        if self.fails:
            raise ConfigError('nothing can follow')

        def run(x):
            self.calls += 1
            return call(x)

        return run


def test_what_follows_a_network_is_timed_with_it_and_named(subject):
    after = Counting()
    whole = replace(subject, part='with post-processing', after=after)
    bench = compare([subject, whole, replace(whole, after=Counting(fails=True))])
    bench.run(QUICK)
    alone, with_it, failed = rows(bench)
    assert after.calls > with_it['samples'] == 14
    assert (alone['part'], with_it['part']) == ('model', 'with post-processing')
    assert ('candidates' in alone, with_it['candidates']) == (False, 7)
    assert failed['error'] == 'nothing can follow'
    _, first, second, third, *_ = as_text([alone, with_it, failed], 0.01).splitlines()
    assert first.startswith('net   ')
    assert second.startswith('net, with post-processing of 7 candidates   ')
    assert third.endswith('nothing can follow')
