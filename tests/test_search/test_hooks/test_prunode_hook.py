import pytest

RULES = dict(
    width=dict(type='width', initial=0.75),
    logits=dict(type='logits', initial=0.75, interval=2, margin=0.01, smoothing=0.0),
)


@pytest.mark.parametrize('rule', RULES)
def test_widths_walk_and_moves_are_recorded(make_lone_search, history, rule):
    options = {'model.architecture.backbone.rule': RULES[rule], 'train_cfg.max_iters': 20}
    wide = dict(gap=dict(start=0.5, end=0.5))
    make_lone_search(dict(RampHook={}, PrunodeHook=wide), options).train()
    rows = history()
    assert len(rows) == 15
    first, last = rows[0]['widths'], rows[-1]['widths']
    assert any(abs(last[name]['expected'] - first[name]['expected']) >= 8 for name in first)
    for before, row in zip(rows, rows[1:], strict=False):
        moves = {event['candidate']: event for event in row['events']}
        assert {event['kind'] for event in row['events']} <= {'move'}
        for name, now in row['widths'].items():
            was = before['widths'][name]
            assert ([was['lo'], was['hi']] != [now['lo'], now['hi']]) == (name in moves)
            if name in moves:
                assert moves[name]['old'] == [was['lo'], was['hi']]
                assert moves[name]['new'] == [now['lo'], now['hi']]
    assert any(row['events'] for row in rows)
    assert last.keys() == first.keys()  # no other tier acts


@pytest.mark.parametrize('rule', RULES)
def test_the_pair_narrows_to_the_granularity(make_lone_search, history, rule):
    options = {'model.architecture.backbone.rule': RULES[rule], 'train_cfg.max_iters': 20}
    gap = dict(start=0.75, end=0.0, begin=0.2, finish=0.8)
    make_lone_search(dict(PrunodeHook=dict(gap=gap)), options).train()
    gaps = [
        {pair['hi'] - pair['lo'] for pair in row['widths'].values() if pair['widest'] == 32}
        for row in history()
    ]
    assert gaps[0] == {24}
    assert gaps[-1] == {8}
    assert any(16 in pair for pair in gaps)  # where the grid's end does not cut it


def test_without_it_every_width_stays_where_it_starts(make_lone_search, history):
    blends = {'model.architecture.backbone.sampling': 'softmax'}
    runner = make_lone_search({}, blends | {'train_cfg.max_iters': 12})
    runner.train()
    rows = history()
    assert all(row['widths'] == rows[0]['widths'] for row in rows)
    assert all(pair['expected'] == pair['widest'] for pair in rows[0]['widths'].values())
    # and its optimiser has nothing to remember of them
    groups = runner.optim_wrapper['architecture'].optimizer.param_groups
    assert [group['name'] for group in groups] == ['widths', 'logits', 'keep']
    state = runner.optim_wrapper['architecture'].optimizer.state
    assert not any(parameter in state for parameter in groups[0]['params'])
    assert all(parameter in state for parameter in groups[1]['params'])
