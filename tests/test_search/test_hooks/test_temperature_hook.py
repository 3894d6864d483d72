import pytest

BLENDS = {'model.architecture.backbone.sampling': 'softmax'}


def test_follows_its_schedule_down(make_lone_search, history):
    cooling = dict(start=2.0, end=0.5, shape='exponential')
    runner = make_lone_search(
        dict(TemperatureHook=dict(temperature=cooling)), BLENDS | {'train_cfg.max_iters': 17}
    )
    runner.train()
    rows = history()
    assert [row['temperature'] for row in rows] == pytest.approx(
        [2.0 * 0.25 ** (row['progress']) for row in rows]
    )
    assert rows[-1]['temperature'] == pytest.approx(0.5)
    supernet = runner.model.supernet
    assert {layer.temperature for layer in supernet.layers().values()} == {0.5}
    assert float(supernet.temperature) == 0.5


def test_without_it_the_temperature_is_one(make_lone_search, history):
    make_lone_search({}, {'train_cfg.max_iters': 7}).train()
    assert {row['temperature'] for row in history()} == {1.0}


def test_hard_paths_have_no_temperature(make_lone_search, history):
    make_lone_search(dict(TemperatureHook={}), {'train_cfg.max_iters': 7}).train()
    assert {row['temperature'] for row in history()} == {1.0}
