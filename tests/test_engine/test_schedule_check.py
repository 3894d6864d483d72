import pytest

from prunet_mm.engine.schedule_check import require_schedule
from prunet_mm.errors import ConfigError

COSINE = dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True)


def config(*schedulers, val_dataloader=None, **train_cfg):
    train_cfg = train_cfg or dict(by_epoch=True, max_epochs=12)
    return dict(
        train_cfg=train_cfg, param_scheduler=list(schedulers), val_dataloader=val_dataloader
    )


@pytest.mark.parametrize('epochs', [1, 2])
def test_a_schedule_that_begins_when_the_training_is_over(epochs):
    with pytest.raises(ConfigError) as caught:
        require_schedule(config(COSINE, max_epochs=epochs))
    assert str(caught.value).startswith(
        'param_scheduler.0 (CosineAnnealingLR) begins at epoch 2, but ends at '
        f'{epochs}, where the training does (train_cfg.max_epochs={epochs}): train longer'
    )


def test_a_schedule_that_ends_before_it_begins():
    with pytest.raises(ConfigError, match='begins at epoch 9, but ends at 4: train longer'):
        require_schedule(config(dict(type='LinearLR', begin=9, end=4)))


def test_those_of_a_search_are_named():
    cfg = config(type='SearchLoop', max_iters=100)
    late = dict(type='CosineAnnealingLR', by_epoch=False, begin=100)
    cfg['param_scheduler'] = dict(weights=[], architecture=[late])
    with pytest.raises(ConfigError, match=r'param_scheduler.architecture.0 .*at iteration 100'):
        require_schedule(cfg)


@pytest.mark.parametrize('value', [None, 7, 'cosine', [None]])
def test_what_is_no_schedule_is_named(value):
    cfg = dict(train_cfg=dict(max_iters=10), param_scheduler=dict(weights=value))
    with pytest.raises(ConfigError, match=r'param_scheduler\.weights\S* is .*expected a schedule'):
        require_schedule(cfg)


def test_epochs_do_not_end_where_iterations_are_counted():
    with pytest.raises(ConfigError, match='counts epochs, but the training counts iterations'):
        require_schedule(config(dict(type='LinearLR', end=1), by_epoch=False, max_iters=50))
    converted = dict(type='LinearLR', end=1, convert_to_iter_based=True)
    require_schedule(config(converted, by_epoch=False, max_iters=50))


@pytest.mark.parametrize('value', [0, -3, 2.5, 'abc', True])
def test_no_length_at_all(value):
    with pytest.raises(ConfigError, match='train_cfg.max_epochs is .*a whole number from 1 on'):
        require_schedule(config(max_epochs=value))


@pytest.mark.parametrize(
    ('cfg', 'batches', 'words'),
    [
        (config(dict(type='LinearLR', end=13)), None, 'ends at epoch 13, after the training'),
        (
            config(dict(type='LinearLR', by_epoch=False, end=500)),
            20,
            'ends at iteration 500, after the training (train_cfg.max_epochs=12 of 20 iterations)',
        ),
        (
            config(max_epochs=3, val_interval=5, val_dataloader=dict(batch_size=1)),
            None,
            'val_interval=5 is longer than the training (train_cfg.max_epochs=3), so it is not',
        ),
    ],
)
def test_what_never_comes_is_said(cfg, batches, words):
    with pytest.warns(UserWarning) as caught:
        require_schedule(cfg, batches)
    (warning,) = caught
    assert words in str(warning.message)


@pytest.mark.parametrize(
    'cfg',
    [
        config(),
        config(COSINE),
        config(dict(type='LinearLR', end=12), COSINE),
        config(dict(type='LinearLR', by_epoch=False, end=500)),  # who knows how many there are
        dict(param_scheduler=COSINE, train_cfg=dict(max_epochs=3)),
        dict(train_cfg=None, param_scheduler=None),
        dict(),
    ],
)
def test_what_fits_is_fine(cfg, recwarn):
    require_schedule(cfg)
    require_schedule(cfg, batches=100)
    assert len(recwarn) == 0
