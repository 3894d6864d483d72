"""OpenMMLab's own inferencers take every shipped config, on images of any size and colour."""

import numpy as np
import pytest
from mmengine.config import Config

PIXELS = 64


def shipped(root_folder):
    from pathlib import Path

    folder = Path(__file__).parents[2] / 'configs' / root_folder
    return sorted(path.stem for path in folder.glob('*.py'))


@pytest.fixture
def picture():
    return np.random.RandomState(0).randint(256, size=(48, 70, 3)).astype(np.uint8)


def shrink(cfg):
    """Lets the networks see smaller images, since large ones take seconds."""
    for step in cfg.test_dataloader.dataset.pipeline:
        for key in {'scale', 'crop_size'} & step.keys():
            old = step[key]
            if (old if isinstance(old, int) else max(old)) > PIXELS:
                step[key] = PIXELS if isinstance(old, int) else (PIXELS, PIXELS)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', shipped('cls'))
def test_classifiers(root, picture, name):
    from mmpretrain import ImageClassificationInferencer

    cfg = Config.fromfile(root / f'configs/cls/{name}.py')
    shrink(cfg)
    if name == 'prunet_cifar10':  # for a network that a search has found
        cfg.model.backbone.arch = str(root / 'configs/det/prunet_digits.json')
        cfg.model.head.in_channels = 160
    inferencer = ImageClassificationInferencer(cfg, pretrained=False, device='cpu')
    (found,) = inferencer(picture)
    assert found['pred_scores'].shape == (cfg.model.head.num_classes,)
    assert found['pred_scores'].sum() == pytest.approx(1, rel=1e-4)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', shipped('det'))
def test_detectors(root, picture, name):
    from mmdet.apis import DetInferencer

    cfg = Config.fromfile(root / f'configs/det/{name}.py')
    shrink(cfg)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.test_cfg.score_thr = 0.0
    inferencer = DetInferencer(cfg, device='cpu', show_progress=False)
    (found,) = inferencer(picture, no_save_vis=True)['predictions']
    assert 0 < len(found['bboxes']) <= cfg.model.test_cfg.max_per_img
    assert np.isfinite(found['bboxes']).all()
