"""Trainings are in channels-last, and go on after an interruption as if there had been none."""

from itertools import count

import pytest
import torch
from mmengine.model import BaseModel

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.engine.screen_runner import ScreenRunner

NAMES = (f'screen runner {i}' for i in count())  # mmengine keeps one logger for each


class Network(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, bias=False),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 4, 3),
        )

    def forward(self, x, mode='tensor'):
        out = self.layers(x)
        return dict(loss=out.square().mean()) if mode == 'loss' else out


@pytest.fixture
def build(tmp_path):
    images = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(0))

    def build(**options):
        return ScreenRunner(
            model=Network(),
            work_dir=str(tmp_path),
            train_dataloader=dict(
                dataset=[dict(x=image) for image in images],
                batch_size=2,
                sampler=dict(type='InfiniteSampler'),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=False, max_iters=4),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            default_hooks=dict(
                checkpoint=dict(type='AtomicCheckpointHook', interval=2, by_epoch=False)
            ),
            experiment_name=next(NAMES),
            randomness=dict(seed=0),
            log_level='ERROR',
            **options,
        )

    return build


def test_the_network_is_in_channels_last_and_computes_the_same(build):
    runner, x = build(), torch.randn(2, 3, 9, 9)
    convolution = runner.model.layers[3]
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert runner.model(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(runner.model(x), Network()(x))


def test_what_is_resumed_ends_in_the_same_bits(build, tmp_path):
    build().train()
    whole = load_checkpoint_file(tmp_path / 'iter_4.pth')
    (tmp_path / 'iter_4.pth').unlink()
    build(load_from=str(tmp_path / 'iter_2.pth'), resume=True).train()
    resumed = load_checkpoint_file(tmp_path / 'iter_4.pth')
    assert all(
        torch.equal(whole['state_dict'][k], resumed['state_dict'][k])
        for k in Network().state_dict()
    )
    moments = (one['optimizer']['state'][0]['momentum_buffer'] for one in (whole, resumed))
    assert torch.equal(*moments)
