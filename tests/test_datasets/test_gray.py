import numpy as np
import pytest
from mmengine.registry import TRANSFORMS


@pytest.fixture
def gray():
    import prunet_mm

    prunet_mm.register_all_modules()
    return TRANSFORMS.build(dict(type='Gray'))


def test_colours_become_their_luminance(gray):
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 2] = 100  # red
    (value,) = np.unique(gray(dict(img=image))['img'])
    assert value == 30  # 0.299 * 100
    assert gray(dict(img=image))['img'].shape == (4, 6, 1)


def test_gray_images_stay(gray):
    image = np.random.RandomState(0).randint(256, size=(8, 8, 1)).astype(np.uint8)
    assert gray(dict(img=image))['img'] is image
