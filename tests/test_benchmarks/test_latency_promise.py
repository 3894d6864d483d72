import runpy

import pytest


@pytest.fixture(scope='module')
def promise(root):
    return runpy.run_path(str(root / 'benchmarks/latency_promise.py'))


def test_ten_searches_of_three_configs_of_which_some_are_disturbed(promise, root):
    runs = promise['RUNS']
    assert len({run.work_dir for run in runs}) == 10
    assert {run.config for run in runs} == set(promise['CONFIGS'])
    assert 0 < sum(run.busy for run in runs) < 5
    assert all((root / path).exists() for path in promise['CONFIGS'].values())


def test_the_verdict_counts_what_is_off_and_what_is_over(promise):
    rows = [dict(budget_ms=6.0, predicted_ms=5.95, again_ms=ms) for ms in (5.9, 6.03, 5.0)]
    assert promise['verdict'](rows) == (
        'within 3% of the prediction: 2 of 3 (-16.0% to +1.3%); against the budget -16.7% to '
        '+0.5%, allowed is +1%'
    )
