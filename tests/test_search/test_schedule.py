import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.search.schedule import Schedule


@pytest.mark.parametrize('shape', ['linear', 'exponential'])
def test_it_is_at_its_start_before_and_at_its_end_after(shape):
    schedule = Schedule(4.0, 1.0, begin=0.2, finish=0.6, shape=shape)
    assert [schedule(p) for p in (0.0, 0.2)] == [4.0, 4.0]
    assert [schedule(p) for p in (0.6, 1.0)] == pytest.approx([1.0, 1.0])


def test_linear_is_half_way_in_half_the_time():
    assert Schedule(4.0, 1.0, begin=0.2, finish=0.6)(0.4) == pytest.approx(2.5)


def test_exponential_has_equal_ratios_in_equal_times():
    assert Schedule(4.0, 1.0, shape='exponential')(0.5) == pytest.approx(2.0)


def test_it_moves_in_one_direction():
    for shape in ('linear', 'exponential'):
        values = [Schedule(0.1, 0.9, 0.1, 0.8, shape)(i / 100) for i in range(101)]
        assert values == sorted(values)


def test_it_is_built_from_a_config_or_taken_as_it_is():
    schedule = Schedule.build(dict(start=1, end=0, finish=0.5))
    assert schedule == Schedule(1, 0, 0.0, 0.5)
    assert Schedule.build(schedule) is schedule


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (dict(start=1, end=0, begin=0.7, finish=0.7), ['begin=0.7', 'finish=0.7']),
        (dict(start=1, end=0, begin=-0.1), ['begin=-0.1']),
        (dict(start=1, end=0, finish=1.1), ['finish=1.1']),
        (dict(start=1, end=0, shape='cosine'), ['cosine', 'exponential']),
        (dict(start=1, end=0, shape='exponential'), ['positive']),
        (dict(start=1), ['start', 'end']),
        (dict(start=1, stop=0), ['stop', 'end']),
        (0.25, ['0.25', 'start', 'end']),
    ],
)
def test_an_impossible_one_is_refused_in_a_sentence(config, words):
    with pytest.raises(ConfigError) as error:
        Schedule.build(config)
    assert all(word in str(error.value) for word in words)
