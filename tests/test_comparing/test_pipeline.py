import pytest

from prunet_mm.comparing.facts import input_size
from prunet_mm.engine.cli import load_config

EDGE = dict(type='ResizeEdge', scale=256)
CROP = dict(type='CenterCrop', crop_size=224)
WIDE = dict(type='Resize', scale=(1333, 800), keep_ratio=True)


def config(*pipeline, **fields):
    return dict(test_dataloader=dict(dataset=dict(pipeline=list(pipeline))), **fields)


@pytest.mark.parametrize(
    ('pipeline', 'size'),
    [
        ([EDGE, CROP], (224, 224)),
        ([dict(type='Resize', scale=96)], (96, 96)),
        ([dict(type='Resize', scale=(320, 256))], (256, 320)),
        ([WIDE], (800, 1333)),
        ([dict(WIDE, scale=(800, 1333))], (800, 1333)),
        ([dict(WIDE, scale=(416, 400)), dict(type='Pad', pad_to_square=True)], (416, 416)),
        ([EDGE], None),
        ([], None),
    ],
)
def test_the_size_is_what_the_pipeline_ends_in(pipeline, size):
    assert input_size(config(*pipeline)) == size


def test_a_detector_pads():
    preprocessor = dict(pad_size_divisor=32)
    assert input_size(config(WIDE, model=dict(data_preprocessor=preprocessor))) == (800, 1344)


def test_the_pipeline_may_be_in_a_wrapped_data_set_or_at_the_top():
    wrapped = dict(dataset=dict(dataset=dict(pipeline=[CROP])))
    assert input_size(dict(test_dataloader=wrapped)) == (224, 224)
    assert input_size(dict(test_pipeline=[CROP])) == (224, 224)


@pytest.mark.parametrize(
    ('pattern', 'size'),
    [
        ('retinanet_*_coco', (800, 1344)),
        ('efficientdet_*_coco', (512, 512)),
        ('*_digits', (128, 128)),
        ('*_bccd', (192, 256)),
    ],
)
def test_the_sizes_of_our_detectors(root, pattern, size):
    paths = list((root / 'configs/det').glob(f'{pattern}.py'))
    assert paths
    for path in paths:
        assert input_size(load_config(str(path))) == size, path
