import re
import warnings

import pytest

from prunet_mm.errors import ConfigError


def test_a_search_runs_without_a_warning_of_ours(make_search):
    runner = make_search({'train_cfg.max_iters': 8}, hooks=dict(DeriveHook=None))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        runner.train()
    assert not [str(w.message) for w in seen if 'scheduler' in str(w.message)]


def test_rates_follow_their_schedules_from_the_first_step_on(make_search):
    runner = make_search({'train_cfg.max_iters': 20}, hooks=dict(DeriveHook=None))
    runner.train()
    rates = {
        name: [group['lr'] for group in wrapper.optimizer.param_groups]
        for name, wrapper in runner.optim_wrapper.items()
    }
    start = {'weights': [0.1], 'architecture': [0.1, 0.3, 0.2]}
    least = {'weights': 0.01, 'architecture': 0.3}
    for name, values in rates.items():
        for value, first in zip(values, start[name], strict=True):
            assert least[name] * first <= value < (least[name] + 0.02) * first


def test_a_scheduler_that_steps_too_early_is_still_reported(make_search, started):
    runner = started(make_search())
    schedulers = runner.build_param_scheduler(runner.param_schedulers)
    with pytest.warns(UserWarning, match='before `optimizer.step'):
        schedulers['weights'][0].step()


def test_a_model_without_a_search_is_refused(make_search):
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='PRUNet', arch='prunet_p0'),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=704),
        _delete_=True,
    )
    with pytest.raises(ConfigError, match='found ImageClassifier, expected an ArchitectureSearch'):
        make_search({'model': model})


def test_a_budget_that_takes_skips_is_refused_where_no_hook_opens_them(make_search):
    supernet = make_search().model.supernet
    least_ms, hooks = supernet.reachable_ms(), dict(LayerPruningHook=None, DeriveHook=None)

    def search(budget_ms, hooks):
        options = {'model.latency': dict(budget_ms=budget_ms, budget_ratio=None)}
        return make_search(options | {'train_cfg.max_iters': 6}, hooks=hooks)

    with pytest.raises(ConfigError, match='takes layers that are skipped') as error:
        search(0.99 * least_ms, hooks).train()
    named = re.search(r'all of them (\S+) ms is the least', str(error.value))[1]
    search(float(named), hooks).train()
    search(0.99 * least_ms, dict(DeriveHook=None)).train()
