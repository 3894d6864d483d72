"""What exported files do with an image is what the pipeline of their config does."""

import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope

from prunet_mm.engine.cli import load_config
from prunet_mm.errors import ConfigError
from prunet_mm.inference.preparing import Preparation, preparation_of

ROOT_CONFIGS = [
    'cls/prunet_digits',
    'cls/prunet_cifar10',
    'cls/prunet-p0_8xb256_in1k',
    'cls/gpunet-1_8xb256_in1k',
    'det/retinanet_prunet_digits',
    'det/retinanet_prunet_bccd',
    'det/retinanet_prunet_coco',
    'det/efficientdet_prunet_coco',
]
SHAPES = [(48, 64), (64, 48), (700, 901), (33, 500)]


@pytest.fixture
def load(root):
    return lambda name: load_config(root / f'configs/{name}.py')


def image(shape):
    return np.random.RandomState(0).randint(256, size=(*shape, 3)).astype(np.uint8)


def by_pipeline(cfg, pixels):
    """The input that the config's own pipeline and preprocessor make."""
    scope = cfg.default_scope
    settings = copy.deepcopy(cfg.get('data_preprocessor') or cfg.model.data_preprocessor)
    settings.setdefault('type', 'ClsDataPreprocessor')
    loading = 'LoadImageFromFile', 'LoadAnnotations'
    steps = [x for x in cfg.test_dataloader.dataset.pipeline if x['type'] not in loading]
    size = pixels.shape[:2]
    sample = dict(img=pixels, img_shape=size, ori_shape=size, img_path='', img_id=0)
    with DefaultScope.overwrite_default_scope(scope):
        data = pseudo_collate([Compose(steps)(sample)])
        data = MODELS.build(settings)(data, False)
    return data['inputs'][0], data['data_samples'][0]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', ROOT_CONFIGS)
def test_an_input_is_that_of_the_config(load, name, shape):
    cfg, pixels = load(name), image(shape)
    channels = 1 if 'digits' in name and 'cls' in name else 3
    prepared = preparation_of(cfg, channels, 32)(pixels)
    wanted, sample = by_pipeline(cfg, pixels)
    height, width = prepared.content
    if name.startswith('cls'):
        assert prepared.pixels.shape == tuple(wanted.shape)
    elif sample.img_shape != prepared.content:  # upright images are made to fit
        assert shape[0] > shape[1]
        assert prepared.pixels.shape[1] == height
        return
    else:
        assert prepared.scale == pytest.approx(sample.scale_factor)
        assert not prepared.pixels[:, height:].any() and not prepared.pixels[..., width:].any()
    wanted = wanted[:, :height, :width]
    torch.testing.assert_close(torch.from_numpy(prepared.pixels[:, :height, :width]), wanted)


@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        ('det/retinanet_prunet_coco', None, (800, 1344)),
        ('det/retinanet_prunet_bccd', None, (192, 256)),
        ('det/efficientdet_prunet_coco', None, (512, 512)),
        ('det/retinanet_prunet_coco', [640], (640, 640)),
        ('cls/prunet-p0_8xb256_in1k', None, (224, 224)),
        ('cls/prunet-p0_8xb256_in1k', [64, 96], (64, 96)),
        ('cls/prunet_digits', [16], (16, 16)),
    ],
)
def test_inputs_have_the_size_of_a_test_or_the_one_that_is_asked_for(load, name, size, expected):
    channels = 1 if name == 'cls/prunet_digits' else 3
    preparation = preparation_of(load(name), channels, 8, size)
    assert preparation.size == expected
    for shape in SHAPES:
        assert preparation(image(shape)).pixels.shape == (channels, *expected)
    assert Preparation.from_dict(preparation.to_dict()) == preparation


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Pad', size=(9, 9)),
        dict(type='Resize', scale_factor=2.0),
        dict(type='ResizeEdge', scale=9, edge='long'),
    ],
)
def test_a_step_that_files_cannot_describe_is_named(load, step):
    cfg = load('det/retinanet_prunet_digits')
    cfg.test_dataloader.dataset.pipeline[1] = step
    with pytest.raises(ConfigError, match=f'the test pipeline has a step .*{step["type"]}'):
        preparation_of(cfg, 3, 32)
