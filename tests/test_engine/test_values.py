import math

import pytest
from mmengine.config import Config

from prunet_mm.engine.values import check_values
from prunet_mm.errors import ConfigError


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [
        ('randomness.seed', -1, 'a whole number of at least 0 and at most 4294967295'),
        ('randomness.seed', 2**32, 'at most 4294967295'),
        ('default_hooks.checkpoint.max_keep_ckpts', 'abc', 'a whole number of at least -1'),
        ('env_cfg.mp_cfg.mp_start_method', 'frok', "('fork', 'spawn', 'forkserver')"),
        ('env_cfg.dist_cfg.timeout', 0, 'a finite number of at least 1'),
        ('env_cfg.dist_cfg.timeout', 'long', 'a finite number'),
        ('randomness.seed', 'abc', 'a whole number'),
        ('train_cfg.max_epochs', 0, 'a whole number of at least 1'),
        ('train_cfg.max_iters', 'abc', 'a whole number'),
        ('train_cfg.max_iters', 1e5, 'a whole number'),
        ('train_cfg.architecture_batch_size', 0, 'at least 1'),
        ('val_dataloader.batch_size', True, 'a whole number'),
        ('train_dataloader.num_workers', -1, 'at least 0'),
        ('optim_wrapper.optimizer.lr', '1e-3x', 'a finite number of at least 0'),
        ('optim_wrapper.weights.optimizer.lr', -0.1, 'at least 0'),
        ('optim_wrapper.architecture.paramwise_cfg.keep', math.nan, 'a finite number'),
        ('optim_wrapper.optimizer.weight_decay', math.inf, 'a finite number'),
        ('model.latency.budget_ms', 'abc', 'a finite number'),
        ('model.latency.budget_ratio', [0.5], 'a finite number'),
        ('torch_threads', -1, 'at least 1'),
        ('train_dataloader', 5, 'a dict'),
        ('optim_wrapper.weights.optimizer', 'SGD', 'a dict'),
        ('work_dir', 5, 'a text'),
        ('train_dataloader.dataset.data_root', 5, 'a text'),
        ('custom_hooks', 5, 'a list'),
    ],
)
def test_a_number_that_cannot_be_is_named(key, value, expected):
    cfg = Config(dict(train_cfg=dict(type='SearchLoop')))
    if 'dataloader.' in key:
        cfg.merge_from_dict({f'{key.partition(".")[0]}.dataset.type': 'Digits'})
    cfg.merge_from_dict({key: value})
    with pytest.raises(ConfigError) as raised:
        check_values(cfg, 'my.py')
    sentence = str(raised.value)
    assert sentence.startswith(f'my.py: {key} is {value!r}: expected ') and expected in sentence


def test_what_is_fine_or_left_out_passes():
    settings = dict(
        randomness=dict(seed=None),
        train_cfg=dict(max_epochs=3, architecture_batch_size=None),
        optim_wrapper=dict(weights=dict(optimizer=dict(lr=0, weight_decay=1e-4))),
        train_dataloader=None,
        model=dict(type='x'),
        custom_hooks=[],
    )
    check_values(Config(settings), 'my.py')


def test_a_loader_without_a_data_set_is_refused():
    for loader in (dict(batch_size=3), dict(dataset=None)):
        with pytest.raises(ConfigError, match='my.py: val_dataloader has no dataset'):
            check_values(Config(dict(val_dataloader=loader)), 'my.py')
