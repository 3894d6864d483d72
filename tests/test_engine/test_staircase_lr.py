import math

import pytest
import torch
from mmengine.optim import LinearLR
from mmengine.registry import PARAM_SCHEDULERS

from prunet_mm.engine.staircase_lr import StaircaseLR
from prunet_mm.errors import ConfigError


def make_optimizer(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)


def rates(optimizer, schedulers, steps):
    """The learning rates of so many steps, the first one included."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize('step_size', [2.4, 3, 0.1, 0.3, 1 / 3])
def test_reduced_once_for_every_step_size_that_has_passed(step_size):
    optimizer = make_optimizer()
    found = rates(optimizer, [StaircaseLR(optimizer, step_size, gamma=0.97)], 100)
    per_step = {2.4: 5 / 12, 3: 1 / 3, 0.1: 10, 0.3: 10 / 3, 1 / 3: 3}[step_size]
    expected = [0.97 ** math.floor(t * per_step + 1e-6) for t in range(100)]
    assert found == pytest.approx(expected, rel=1e-12)


def test_counts_from_epoch_0_beside_a_warm_up_as_timm_does():
    optimizer = make_optimizer(0.08)
    schedulers = [
        LinearLR(optimizer, start_factor=1e-6 / 0.08, end=4),
        StaircaseLR(optimizer, 2.4, gamma=0.97),
    ]
    found = rates(optimizer, schedulers, 101)
    warm_up = [1e-6 + (0.08 - 1e-6) * t / 3 for t in range(3)]
    assert found[:3] == pytest.approx(warm_up)
    assert found[3:] == pytest.approx([0.08 * 0.97 ** (t // 2.4) for t in range(3, 101)])

    timm_scheduler = pytest.importorskip('timm.scheduler')
    theirs = make_optimizer(0.08)
    schedule = timm_scheduler.StepLRScheduler(
        theirs, decay_t=2.4, decay_rate=0.97, warmup_t=3, warmup_lr_init=1e-6, warmup_prefix=False
    )
    expected = []
    for epoch in range(101):
        schedule.step(epoch)
        expected.append(theirs.param_groups[0]['lr'])
    assert found == pytest.approx(expected)


def test_by_iteration_each_reduction_comes_where_its_fraction_of_an_epoch_ends():
    optimizer = make_optimizer()
    config = dict(type='StaircaseLR', step_size=2.4, gamma=0.5, convert_to_iter_based=True)
    scheduler = PARAM_SCHEDULERS.build(
        config, default_args=dict(optimizer=optimizer, epoch_length=7)
    )
    found = rates(optimizer, [scheduler], 60)
    reduced = [step for step in range(1, 60) if found[step] < found[step - 1]]
    assert reduced == [17, 34, 51]  # 2.4 epochs of 7 iterations are 16.8
    assert not scheduler.by_epoch


def test_counts_from_begin_and_rests_from_end():
    optimizer = make_optimizer()
    found = rates(optimizer, [StaircaseLR(optimizer, 1.5, gamma=0.5, begin=2, end=6)], 10)
    assert found == [1, 1, 1, 1, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize('resume_at', [1, 3, 12, 13])
def test_goes_on_exactly_from_its_state(resume_at):
    def schedulers(optimizer):
        return [
            LinearLR(optimizer, start_factor=0.1, end=4),
            StaircaseLR(optimizer, 2.4, gamma=0.97),
        ]

    whole = make_optimizer()
    expected = rates(whole, schedulers(whole), 30)

    first = make_optimizer()
    before = schedulers(first)
    rates(first, before, resume_at)
    second = make_optimizer()
    after = schedulers(second)
    second.load_state_dict(first.state_dict())
    for scheduler, saved in zip(after, before, strict=True):
        scheduler.load_state_dict(saved.state_dict())
    assert rates(second, after, 30 - resume_at) == expected[resume_at:]


@pytest.mark.parametrize('step_size', [0, -2.4, float('nan')])
def test_a_step_that_is_not_positive_is_one_sentence(step_size):
    with pytest.raises(ConfigError, match='step_size is .*, but has to be positive'):
        StaircaseLR(make_optimizer(), step_size)
