import logging

import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.search import model as module
from prunet_mm.search.latency_settings import doubt, require_settings


def test_the_settings_of_the_table_and_none_at_all_pass(make_table):
    table = make_table(batch=64, threads=2)
    require_settings(table, dict(table='a.json', budget_ms=1.0, device='cpu', precision=0.01))
    require_settings(table, dict(batch=64, threads=2, backend='eager', dtype='float32'))


@pytest.mark.parametrize(
    ('name', 'value'), [('batch', 1), ('threads', 2), ('backend', 'compile'), ('dtype', 'float16')]
)
def test_settings_of_another_table_are_refused(make_table, name, value):
    with pytest.raises(ConfigError) as raised:
        require_settings(make_table(batch=64), {'table': 'a.json', name: value})
    sentence = str(raised.value)
    assert sentence.startswith(f'model.latency.{name} is {value}, but the table ')
    assert f'build one for {value} with' in sentence
    assert f'--cfg-options model.latency.{name}={getattr(make_table(batch=64), name)}' in sentence


def test_a_setting_that_nothing_reads_is_refused(make_table, make_search):
    with pytest.raises(ConfigError, match='model.latency.bacth: there is no such setting, only'):
        require_settings(make_table(), dict(bacth=1))
    with pytest.raises(ConfigError, match='device is gpu: choose cpu, cuda or cuda:N'):
        require_settings(make_table(), dict(device='gpu'))
    with pytest.raises(ConfigError, match='model.latency.batch is 8, but the table'):
        make_search({'model.latency.batch': 8})


def test_images_of_another_size_are_warned_of_once(make_search, started, monkeypatch):
    lines = []
    runner = started(make_search(WIDE))
    monkeypatch.setattr(module, 'print_log', lambda text, level, **_: lines.append((level, text)))
    model = runner.model
    for batch in runner.train_loop.dataloader.probe('weights', 2):
        model.losses(batch)
    ((level, text),) = lines
    assert level == logging.WARNING
    assert text.startswith('Images of 8 x 12 px are searched on, while the latencies by ')
    assert 'are of 8 x 8 px (space.resolution)' in text
    assert model.other_size == text


def test_images_of_the_right_size_are_not(make_search, started):
    runner = started(make_search())
    runner.model.losses(runner.train_loop.dataloader.probe('weights', 1)[0])
    assert runner.model.other_size == ''


WIDE = {
    'train_dataloader.dataset.pipeline': [
        dict(type='Resize', scale=(12, 8)),
        dict(type='PackInputs'),
    ]
}


@pytest.mark.parametrize(
    ('predicted_ms', 'says'),
    [([1.0, 2.0, 3.0, 4.0], ''), ([1.0, 3.0, 2.0, 4.0], 'tau'), ([1.2, 2.4, 3.6, 4.8], '20.0%')],
)
def test_a_table_that_ranks_or_predicts_badly_is_doubted(make_table, predicted_ms, says):
    validation = dict(fitted_on=4, predicted_ms=predicted_ms, measured_ms=[1.0, 2.0, 3.0, 4.0])
    sentence = doubt(make_table(validation=validation))
    assert bool(sentence) == bool(says)
    assert says in sentence


def test_a_table_that_was_never_held_against_networks_is_not_judged(make_table):
    assert doubt(make_table()) == ''
