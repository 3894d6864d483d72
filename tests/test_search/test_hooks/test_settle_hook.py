import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.search.hooks import settle_hook
from prunet_mm.search.model import ArchitectureSearch

OPTIONS = {'train_cfg.max_iters': 25, 'train_cfg.ramp': dict(begin=0.0, fall=0.2)}


def hooks(**options):
    settle = dict(at=0.4, interval=2, probes=2) | options
    return dict(RampHook={}, PrunodeHook={}, SettleHook=settle)


@pytest.fixture
def always_at_rest(monkeypatch):
    at_last = property(lambda self: self.ramp.at_last)
    monkeypatch.setattr(ArchitectureSearch, 'at_rest', at_last)


def settled(rows):
    return [(row, e) for row in rows for e in row['events'] if e['kind'] == 'settled']


@pytest.mark.usefixtures('always_at_rest')
def test_one_layer_at_a_time_with_steps_in_between(make_lone_search, history, log):
    runner = make_lone_search(hooks(), OPTIONS)
    lines = log(runner)
    runner.train()
    rows = history()
    events = settled(rows)
    assert len(events) == len({event['layer'] for _, event in events}) == 4
    steps = [row['step'] for row, _ in events]
    assert all(later - step >= 2 for step, later in zip(steps, steps[1:], strict=False))
    for row, event in events:
        assert row['progress'] >= 0.4
        before = rows[row['step'] - 7]
        left = row['probabilities'][event['layer']]
        assert before['probabilities'][event['layer']].keys() - left == {event['candidate']}
        assert event['jump_ms'] == pytest.approx(row['expected_ms'] - event['expected_ms'])
        assert event['multiplier'] == row['multiplier']
        assert (event['rise'] is None) == (event['share'] >= 0.8 or event['rival'] is None)
        assert event['derived_ms'] > 0 and event['derived_loss'] > 0
        told = f'{event["layer"]} settles for {next(iter(left))}'
        assert any(told in line and 'at lambda' in line for line in lines)
    alive = {id(parameter) for parameter in runner.model.parameters()}
    for wrapper in runner.optim_wrapper.values():
        held = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
        assert {id(p) for p in wrapper.optimizer.state} <= held <= alive


@pytest.mark.usefixtures('always_at_rest')
def test_what_moves_the_latency_by_much_is_done_in_parts(
    make_lone_search, history, monkeypatch, log
):
    most = 0.002
    monkeypatch.setattr(settle_hook, 'MOST', most)
    runner = make_lone_search(hooks(interval=1), {**OPTIONS, 'train_cfg.max_iters': 60})
    lines = log(runner)
    runner.train()
    limit_ms = most * runner.model.budget.budget_ms
    moves_ms = [
        float(line.split('E[lat] moves by ')[1].split()[0])
        for line in lines
        if 'is on its way to' in line
    ]
    assert moves_ms and [abs(move) for move in moves_ms] == pytest.approx(
        [limit_ms] * len(moves_ms), abs=1e-4
    )
    events = settled(history())
    assert events and all(abs(event['jump_ms']) <= limit_ms + 1e-9 for _, event in events)


def test_it_waits_until_the_budget_is_met_again(make_lone_search, history, monkeypatch):
    monkeypatch.setattr(ArchitectureSearch, 'at_rest', False)
    make_lone_search(hooks(), OPTIONS).train()
    assert not settled(history())


@pytest.mark.usefixtures('always_at_rest')
def test_without_widths_that_could_follow_all_is_left_to_the_end(make_lone_search, history):
    make_lone_search(hooks() | dict(PrunodeHook=None), OPTIONS).train()
    assert not any(row['events'] for row in history())


@pytest.mark.parametrize('options', [dict(at=1.1), dict(at=-0.1), dict(interval=0), dict(probes=1)])
def test_impossible_options_are_refused(make_lone_search, options):
    with pytest.raises(ConfigError, match='SettleHook: found at=.*expected a point from 0 to 1'):
        make_lone_search(hooks(**options))
