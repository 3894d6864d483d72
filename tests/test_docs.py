"""What the docs say, tried."""

import re

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS, VISBACKENDS, init_default_scope

from prunet_mm.engine import cli


@pytest.fixture
def snippet(root, tmp_path):
    """Load the config in docs/training.md below a title."""

    def load(title):
        text = (root / 'docs/training.md').read_text()
        code = re.search(rf'^## {title}.*?```python\n(.*?)```', text, re.S | re.M)[1]
        (tmp_path / 'mine.py').write_text(code)
        cfg = cli.load_config(tmp_path / 'mine.py')
        init_default_scope(cfg.default_scope)
        return cfg

    return load


def test_early_stopping(snippet):
    cfg = snippet('The best checkpoint')
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
    *_, stop = [HOOKS.build(hook) for hook in cfg.custom_hooks]
    assert isinstance(stop, EarlyStoppingHook)
    assert (stop.patience, stop.rule) == (3, 'greater')


def test_places_for_curves(snippet):
    cfg = snippet('Where curves go')
    assert cfg.visualizer.type == 'UniversalVisualizer'
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds == ['LocalVisBackend', 'WandbVisBackend', 'MLflowVisBackend']
    assert all(VISBACKENDS.get(kind) for kind in kinds)


def test_images_of_mixed_sizes(snippet):
    pipeline = snippet('Images of mixed').train_dataloader.dataset.pipeline
    (resize,) = [step for step in pipeline if 'Resize' in step.type]
    resize = Compose([resize])
    image = np.zeros((128, 128, 3), np.uint8)
    sizes = {resize(dict(img=image.copy(), img_shape=(128, 128)))['img_shape'] for _ in range(60)}
    assert sizes == {(96, 96), (128, 128), (160, 160)}
