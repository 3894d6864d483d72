"""Every config's schedule fits its training; for one that is too short, mmengine is anticipated."""

import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

import prunet_mm
from prunet_mm.engine.schedule_check import require_schedule, schedulers
from prunet_mm.errors import ConfigError

CONFIGS = sorted(Path(__file__).parents[2].glob('configs/[!_]*/*.py'))
BATCHES = 10


def build(cfg):
    """Build the schedules as mmengine does for an epoch of this many batches."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    epochs = cfg.train_cfg.get('max_epochs')
    iterations = cfg.train_cfg.get('max_iters') or epochs * BATCHES
    for _, scheduler in schedulers(cfg.param_scheduler):
        end = (epochs or 1) if scheduler.get('by_epoch', True) else iterations
        defaults = dict(optimizer=optimizer, epoch_length=BATCHES)
        PARAM_SCHEDULERS.build(dict(end=end) | dict(scheduler), default_args=defaults)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_schedule_that_does_not_fit_is_refused_and_no_other(path):
    prunet_mm.register_all_modules()
    cfg = Config.fromfile(path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        require_schedule(cfg)
    build(cfg)
    cfg.train_cfg['max_epochs' if 'max_epochs' in cfg.train_cfg else 'max_iters'] = 1
    try:
        require_schedule(cfg)
    except ConfigError as error:
        assert 'param_scheduler.' in str(error) and '\n' not in str(error)
        with pytest.raises(ValueError, match='end'):
            build(cfg)
    else:
        build(cfg)
