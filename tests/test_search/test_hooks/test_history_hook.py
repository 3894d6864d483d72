import json

import pytest

from prunet_mm.spec import NetworkSpec


def test_one_row_an_architecture_step_tells_all(make_search, history, tmp_path):
    options = {'train_cfg.max_iters': 12, 'train_cfg.architecture_interval': 2}
    runner = make_search(options, hooks=dict(DeriveHook=None, HistoryHook=dict(interval=2)))
    runner.train()
    rows = history()
    assert [row['step'] for row in rows] == [6, 8, 10, 12]
    assert [row['progress'] for row in rows] == pytest.approx([1 / 7, 3 / 7, 5 / 7, 1])
    last, supernet = rows[-1], runner.model.supernet
    assert last['expected_ms'] == float(supernet.expected_latency_ms())
    assert last['budget_ms'] == runner.model.ramp.budget_ms
    assert last['multiplier'] == float(runner.model.objective.multiplier)
    assert last['target_ms'] == runner.model.budget.budget_ms
    assert last['steady'] == runner.model.steady
    for name, layer in supernet.layers().items():
        assert last['probabilities'][name] == pytest.approx(
            dict(zip(layer.candidates, layer.probabilities().tolist(), strict=True))
        )
        for candidate, block in layer.candidates.items():
            lo, hi, _ = block.pair()
            assert last['widths'][f'{name}.{candidate}'] == dict(
                expected=block.expected_width(), lo=lo, hi=hi, widest=block.widths[-1]
            )
    for before, row in zip(rows, rows[1:], strict=False):
        gone = {
            (event['layer'], event.get('candidate'))
            for event in row['events']
            if event['kind'] != 'move'
        }
        left = {(layer, c) for layer, names in row['probabilities'].items() for c in names}
        had = {(layer, c) for layer, names in before['probabilities'].items() for c in names}
        assert {(a, b) for a, b in had - left if (a, None) not in gone} == {
            (a, b) for a, b in gone if b and (a, None) not in gone
        }


def test_the_visualizer_gets_the_numbers_too(make_search, history, tmp_path):
    hooks = dict(DeriveHook=None, HistoryHook=dict(interval=2))
    make_search({'train_cfg.max_iters': 11}, hooks=hooks).train()
    (path,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    written = [json.loads(line) for line in path.read_text().splitlines()]
    written = [row for row in written if 'search/expected_ms' in row]
    rows = history()[::2]
    assert [row['step'] for row in written] == [row['step'] for row in rows]
    for one, row in zip(written, rows, strict=True):
        assert one['search/expected_ms'] == row['expected_ms']
        assert one['structure/layers'] == len(row['probabilities'])
        for name, pair in row['widths'].items():
            assert one[f'width/{name}'] == pair['expected']


def test_what_an_estimated_table_says_is_called_estimated(
    make_search, make_table, history, tmp_path
):
    options = {'train_cfg.max_iters': 11, 'log_level': 'INFO'}
    make_search(options, table=make_table(kind='estimated')).train()
    rows = history()
    assert {row['table_kind'] for row in rows} == {'estimated'}
    (path,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    names = {name for line in path.read_text().splitlines() for name in json.loads(line)}
    assert 'search/estimated_expected_ms' in names
    assert 'search/expected_ms' not in names
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert 'Latencies are estimated on a device far away' in log.read_text()
    assert NetworkSpec.load(tmp_path / 'work/subnet.json').name.startswith('tiny_estimated_')
