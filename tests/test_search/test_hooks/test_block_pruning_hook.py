import pytest

STEPS = {  # 25, of which 5 warm up, at a price that is steady
    'train_cfg.max_iters': 25,
    'model.objective': dict(type='FixedWeight', weight=0.05),
}


def hooks(start, end):
    return dict(RampHook={}, BlockPruningHook=dict(threshold=dict(start=start, end=end)))


def test_removes_for_good_what_falls_below_a_rising_threshold(make_lone_search, history, log):
    runner = make_lone_search(hooks(0, 0.5), STEPS)
    lines = log(runner)
    before = {name: set(layer.candidates) for name, layer in runner.model.supernet.layers().items()}
    runner.train()
    removed = [(row, event) for row in history() for event in row['events']]
    assert removed
    for row, event in removed:
        layer, name = event['layer'], event['candidate']
        assert event['kind'] == 'candidate'
        assert event['threshold'] == pytest.approx(0.5 * (row['step'] - 5) / 20)
        assert event['probability'] < event['threshold']
        assert event['multiplier'] == row['multiplier']
        assert {'derived_ms', 'derived_loss', 'expected_loss'} <= event.keys()
        assert any(
            all(text in line for text in (layer, name, f'{event["probability"]:.3f}', 'lambda'))
            for line in lines
        )
        before[layer].remove(name)
        for later in history()[row['step'] - 6 :]:
            assert name not in later['probabilities'][layer]
            assert f'{layer}.{name}' not in later['widths']
    after = {name: set(layer.candidates) for name, layer in runner.model.supernet.layers().items()}
    assert after == before
    assert all(after.values())


def test_what_is_removed_is_gone_from_both_optimisers(make_lone_search):
    runner = make_lone_search(hooks(0.6, 0.6), STEPS)
    runner.train()
    alive = {id(parameter) for parameter in runner.model.parameters()}
    seen = set()
    for wrapper in runner.optim_wrapper.values():
        held = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
        assert {id(p) for p in wrapper.optimizer.state} <= held <= alive
        seen |= held
    assert seen == alive
    assert all(len(layer.candidates) == 1 for layer in runner.model.supernet.layers().values())


def test_nothing_goes_while_the_budget_falls(make_lone_search, history):
    """What is improbable now may be what a lower budget needs."""
    runner = make_lone_search(hooks(0.6, 0.6), STEPS)
    runner.train()
    rows = history()
    removals = [row for row in rows if row['events']]
    assert removals and all(row['budget_ms'] == row['target_ms'] for row in removals)
    assert any(row['budget_ms'] and row['budget_ms'] > row['target_ms'] for row in rows)


def test_removes_nothing_at_a_threshold_of_zero(make_lone_search, history):
    runner = make_lone_search(hooks(0, 0), STEPS)
    runner.train()
    assert all(len(layer.candidates) == 2 for layer in runner.model.supernet.layers().values())
    assert not any(row['events'] for row in history())
