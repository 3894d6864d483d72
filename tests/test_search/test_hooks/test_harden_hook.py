import pytest

SKIPS = dict(LayerPruningHook=dict(begin=0.1, end=0.3, threshold=0.99))


@pytest.mark.parametrize('interval', [1, 3])
def test_leaves_one_candidate_a_layer_and_no_skip(make_lone_search, history, log, interval):
    options = {'train_cfg.max_iters': 25, 'train_cfg.architecture_interval': interval}
    runner = make_lone_search(dict(HardenHook=dict(at=0.5), **SKIPS), options)
    lines = log(runner)
    runner.train()
    rows = history()
    (at,) = [i for i, row in enumerate(rows) if any(e['kind'] == 'hardened' for e in row['events'])]
    assert rows[at - 1]['progress'] < 0.5 <= rows[at]['progress']
    before, after = rows[at - 1]['probabilities'], rows[at]['probabilities']
    for event in rows[at]['events']:
        assert event['candidate'] in before[event['layer']]
        assert event['probability'] <= 0.5
        assert any(event['candidate'] in line and event['layer'] in line for line in lines)
    assert len(rows[at]['events']) == len(before)
    assert rows[at - 1]['keep']
    for row in rows[at:]:
        assert all(len(chances) == 1 for chances in row['probabilities'].values())
        assert row['probabilities'].keys() == after.keys()
        assert not row['keep']
    assert not any(row['events'] for row in rows[at + 1 :])
    assert not any(float(p) != 1 for p in runner.model.supernet.architecture_parameters()['keep'])
