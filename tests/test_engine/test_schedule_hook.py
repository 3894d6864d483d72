import itertools
import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from prunet_mm.engine.checkpoint import load_checkpoint_file, use_safe_loading
from prunet_mm.engine.schedule_hook import ChangedScheduleHook
from prunet_mm.errors import CheckpointError

pytestmark = pytest.mark.usefixtures('mmengine_as_it_was')
NUMBERS = itertools.count()
WARM_UP = dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', convert_to_iter_based=True)
STEPS = dict(type='MultiStepLR', milestones=[1, 3])  # of epochs, after the others


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x, mode):
        return dict(loss=self.layer(x).square().mean())


@pytest.fixture
def train(tmp_path):
    """Train for some epochs of four steps; returns the steps' rates and what was warned of."""
    use_safe_loading()

    def train(
        epochs,
        resume=None,
        lr=0.1,
        schedule=(WARM_UP, COSINE, STEPS),
        stop=None,
        optimizer=('SGD', dict(momentum=0.9)),
        **wrapper,
    ):
        kind, settings = optimizer
        runner = Runner(
            model=Regression(),
            work_dir=str(tmp_path),
            train_dataloader=dict(
                dataset=[dict(x=torch.tensor([1.0, float(i)])) for i in range(8)],
                batch_size=2,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type=kind, lr=lr, **settings), **wrapper),
            param_scheduler=[dict(part) for part in schedule],
            default_hooks=dict(
                checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=-1)
            ),
            load_from=resume and str(tmp_path / resume),
            resume=resume is not None,
            randomness=dict(seed=0),
            experiment_name=f'schedule {next(NUMBERS)}',
            log_level='ERROR',
        )
        rates, warned = [], []
        runner.logger.warning = warned.append
        runner.register_hook(ChangedScheduleHook())
        step = runner.model.train_step

        def train_step(data, optim_wrapper):
            rates.append([group['lr'] for group in optim_wrapper.optimizer.param_groups])
            return step(data, optim_wrapper)

        runner.model.train_step = train_step
        runner.train()
        return rates, warned

    return train


def test_an_unchanged_schedule_goes_on_to_the_bit(train, tmp_path):
    whole, _ = train(4)
    end = load_checkpoint_file(tmp_path / 'epoch_4.pth')
    rates, warned = train(4, resume='epoch_2.pth')
    assert (rates, warned) == (whole[8:], [])
    again = load_checkpoint_file(tmp_path / 'epoch_4.pth')
    assert again['param_schedulers'] == end['param_schedulers']
    for name, weight in end['state_dict'].items():
        assert torch.equal(again['state_dict'][name], weight)


@pytest.mark.parametrize(
    ('epochs', 'changes', 'words'),
    [
        (4, dict(lr=0.02), ['optimizer.lr was 0.1 and is 0.02']),
        (8, {}, ['param_scheduler.1.T_max was 16 and is 32']),
        (8, dict(lr=0.3), ['optimizer.lr was 0.1 and is 0.3', 'T_max was 16 and is 32']),
        (4, dict(schedule=(COSINE,)), ['param_scheduler had 3 schedulers and has 1']),
        (4, dict(schedule=(WARM_UP, COSINE, STEPS | dict(gamma=0.5))), ['2.gamma was 0.1 and is']),
    ],
)
def test_a_changed_schedule_is_followed_and_said(train, epochs, changes, words):
    train(4)
    rates, (warning,) = train(epochs, resume='epoch_2.pth', **changes)
    whole, _ = train(epochs, **changes)
    assert rates == whole[8:]
    assert all(word in warning for word in words)
    assert f'with a learning rate of {rates[0][0]:.4g} instead of' in warning


def test_a_changed_decay_is_followed_and_said(train, tmp_path):
    train(2)
    optimizer = ('SGD', dict(momentum=0.8, weight_decay=0.5))
    _, (warning,) = train(3, resume='epoch_2.pth', schedule=(STEPS,), optimizer=optimizer)
    for words in ('momentum was 0.9 and is 0.8', 'weight_decay was 0 and is 0.5'):
        assert f'optim_wrapper.optimizer.{words}' in warning
    (group,) = load_checkpoint_file(tmp_path / 'epoch_3.pth')['optimizer']['param_groups']
    assert (group['momentum'], group['weight_decay']) == (0.8, 0.5)


def test_groups_of_parameters_have_their_own_rates(train):
    paramwise = dict(paramwise_cfg=dict(bias_lr_mult=2.0))
    train(4, **paramwise)
    rates, (warning,) = train(4, resume='epoch_1.pth', lr=0.4, **paramwise)
    assert rates == train(4, lr=0.4, **paramwise)[0][4:]
    assert all(math.isclose(bias, 2 * weight) for weight, bias in rates)
    assert warning.count('optimizer.lr was') == 1


def test_another_optimizer_or_other_groups_are_refused(train):
    train(1)
    with pytest.raises(CheckpointError, match='another .* it has amsgrad, betas.* instead of'):
        train(2, resume='epoch_1.pth', optimizer=('Adam', {}))
    with pytest.raises(CheckpointError, match='into 2 groups, and the checkpoint into 1'):
        train(2, resume='epoch_1.pth', paramwise_cfg=dict(bias_lr_mult=2.0))


def test_a_schedule_by_a_metric_comes_from_the_checkpoint(train):
    schedule = (dict(type='ReduceOnPlateauLR', monitor='loss'),)
    train(1, schedule=schedule)
    rates, (warning,) = train(2, resume='epoch_1.pth', schedule=schedule, lr=0.3)
    assert rates == [[0.1]] * 4
    assert 'lr was 0.1 and is 0.3' in warning
    assert 'this is not followed, since one of the schedulers goes by a metric' in warning


def test_a_run_that_has_nothing_left_says_so(train):
    train(2)
    rates, (*_, warning) = train(1, resume='epoch_2.pth')
    assert rates == []
    assert warning == (
        'the checkpoint is of step 8, and the config has 4: nothing is left to be trained'
    )
