def test_the_budget_of_a_search_falls_step_by_step(make_lone_search, history, log):
    options = {'train_cfg.max_iters': 25, 'train_cfg.ramp': dict(begin=0.2, fall=0.5)}
    runner = make_lone_search(dict(RampHook={}), options)
    lines = log(runner)
    runner.train()
    budgets = [row['budget_ms'] for row in history()]
    assert budgets[:3] == [None] * 3
    fallen = budgets[3:]
    assert all(after <= before for before, after in zip(fallen, fallen[1:], strict=False))
    target_ms = runner.model.budget.budget_ms
    assert fallen[0] > 1.5 * target_ms and fallen[-6:] == [target_ms] * 6
    assert {row['target_ms'] for row in history()} == {target_ms}
    (line,) = [line for line in lines if 'the budget begins to fall' in line]
    assert line.startswith('step 9: ') and f'to {target_ms:.4g} ms' in line


def test_before_it_falls_latency_has_no_price(make_lone_search, history):
    options = {'train_cfg.max_iters': 12, 'train_cfg.ramp': dict(begin=0.5, fall=0.4, rest=0.0)}
    runner = make_lone_search(dict(RampHook={}), options)
    runner.train()
    rows = history()
    silent = [row for row in rows if row['budget_ms'] is None]
    assert 0 < len(silent) < len(rows)
    assert {row['multiplier'] for row in silent} == {0.05}  # where it starts
    assert not any(row['steady'] for row in silent)
    assert rows[-1]['multiplier'] != 0.05
