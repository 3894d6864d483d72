"""Every detection config builds, trains a step and is evaluated on a few images."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner import runner as mmengine_runner
from PIL import Image

import prunet_mm
from prunet_mm.datasets.coco_check import class_names
from prunet_mm.datasets.layout import require_data

CONFIGS = sorted(path.name for path in Path(__file__).parents[2].glob('configs/det/*.py'))
PIXELS = 128
SPLITS = ('train', 'val', 'test')


def write_images(dataset, root):
    """Two images, of which the second shows nothing, where a data set's config looks for them."""
    folder, path = root / dataset.data_prefix.img, root / dataset.ann_file
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    random = np.random.RandomState(0)
    for number in (1, 2):
        pixels = random.randint(256, size=(96, PIXELS, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{number}.jpg')
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=96, width=PIXELS) for i in (1, 2)],
        annotations=[
            dict(id=i, image_id=1, category_id=i, bbox=[30 * i, 10, 25, 40], area=1000, iscrowd=0)
            for i in (1, 2)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(class_names(dataset), 1)],
    )
    path.write_text(json.dumps(content))


@pytest.fixture
def load(root, tmp_path, monkeypatch):
    """Read a config in a form for one step on two small images, which are written."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr(mmengine_runner, 'collect_env', dict)
    prunet_mm.register_all_modules()

    def load(name):
        cfg = Config.fromfile(root / 'configs/det' / name)
        cfg.model.backbone.init_cfg = None
        if 'batch_augments' in cfg.model.data_preprocessor:
            cfg.model.data_preprocessor.batch_augments[0].size = (PIXELS, PIXELS)
        for split in SPLITS:
            loader = cfg[f'{split}_dataloader']
            loader.update(batch_size=2, num_workers=0, persistent_workers=False)
            loader.dataset.update(data_root=str(tmp_path), filter_cfg=None)
            for transform in loader.dataset.pipeline:
                for key in {'scale', 'crop_size'} & transform.keys():
                    transform[key] = (PIXELS, PIXELS)
            write_images(loader.dataset, tmp_path)
            if split != 'train':
                cfg[f'{split}_evaluator'].ann_file = str(tmp_path / loader.dataset.ann_file)
        cfg.model.test_cfg.score_thr = 0.0
        cfg.train_cfg = dict(by_epoch=False, max_iters=1, val_interval=1)
        cfg.param_scheduler = None
        cfg.default_hooks.checkpoint = None
        cfg.vis_backends = cfg.visualizer.vis_backends = []
        cfg.work_dir, cfg.experiment_name = str(tmp_path / 'work'), name
        return cfg

    return load


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_a_step_and_is_evaluated(load, name):
    cfg = load(name)
    require_data(cfg, *SPLITS)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 1
    scalars = runner.message_hub.log_scalars
    assert np.isfinite(scalars['train/loss'].current())
    assert 0 <= scalars['val/coco/bbox_mAP'].current() <= 1
    metrics = runner.test()
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    first = class_names(cfg.test_dataloader.dataset)[0]
    assert f'coco/{first}_precision' in metrics  # pycocotools' table, by class
