"""From a search's files to a classifier that starts where the search stopped."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from prunet_mm.engine import cli


class Start(Hook):
    """Keeps the outputs that a model has before its first step."""

    def __init__(self, images):
        self.images = images

    def before_train(self, runner):
        with torch.no_grad():
            self.logits = runner.model.eval()(self.images, mode='tensor')


@pytest.fixture
def searched(make_search, space):
    """The model of a search at its end, and the parts of its classifier."""
    space['tail']['channels'] = 24
    neck = dict(type='PRUNetTail', in_channels=16, channels=24)
    head = dict(type='LinearClsHead', num_classes=10, in_channels=24)
    options = {'model.architecture.neck': neck, 'model.architecture.head': head}
    runner = make_search(options, space=space)
    runner.train()
    return runner.model, neck, head


def test_a_runner_starts_a_classifier_from_a_search(searched, root, tmp_path):
    model, neck, head = searched
    path = str(tmp_path / 'work/searched.pth')
    pretrained = dict(type='Pretrained', checkpoint=path)
    cfg = cli.load_config(root / 'configs/cls/prunet_digits.py', work_dir=str(tmp_path / 'cls'))
    cfg.model = dict(
        type='ImageClassifier',
        backbone=dict(
            type='PRUNet',
            arch=str(tmp_path / 'work/subnet.json'),
            init_cfg=dict(type='SuperNet', checkpoint=path),
        ),
        neck=dict(neck, init_cfg=dict(pretrained, prefix='architecture.neck.')),
        head=dict(head, init_cfg=dict(pretrained, prefix='architecture.head.')),
    )
    x = torch.randn(5, 1, 8, 8)
    start = Start(x)
    cfg.train_cfg.max_epochs = 1
    cfg.experiment_name = 'starts from a search'  # mmengine finds globals by this name
    runner = Runner.from_cfg(cfg)
    runner.register_hook(start)
    runner.train()
    with torch.no_grad():
        expected = model.architecture.eval()(x, mode='tensor')
    scale = expected.abs().max()
    torch.testing.assert_close(start.logits / scale, expected / scale, rtol=1e-5, atol=1e-5)
