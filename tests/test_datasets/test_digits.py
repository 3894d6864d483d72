import hashlib
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, init_default_scope

from prunet_mm.datasets.digits import Digits
from prunet_mm.errors import ConfigError, DataError


@pytest.fixture(scope='module')
def splits():
    datasets = {split: Digits(split) for split in ('train', 'test')}
    return {
        split: [dataset.get_data_info(i) for i in range(len(dataset))]
        for split, dataset in datasets.items()
    }


def test_samples_are_gray_images_of_eight_pixels(splits):
    images = np.stack([sample['img'] for sample in splits['train'] + splits['test']])
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert Digits.METAINFO['classes'] == tuple('0123456789')


def test_hold_out_is_a_fifth_of_every_class(splits):
    train, test = (
        np.bincount([sample['gt_label'] for sample in splits[split]]) for split in ('train', 'test')
    )
    assert (train.sum(), test.sum()) == (1437, 360)
    assert np.abs(test - (train + test) / 5).max() < 1


def test_no_image_is_in_both_splits(splits):
    train, test = ({s['img'].tobytes() for s in splits[split]} for split in ('train', 'test'))
    assert not train & test


def test_hold_out_never_changes(splits):
    content = b''.join(s['img'].tobytes() + bytes([s['gt_label']]) for s in splits['test'])
    assert hashlib.sha256(content).hexdigest()[:16] == '05e31aa735614e88'


def test_config_normalises_by_the_training_images(splits, root):
    from mmengine.config import Config

    config = Config.fromfile(root / 'configs/_base_/datasets/digits.py')
    pixels = np.stack([sample['img'] for sample in splits['train']])
    assert config.data_preprocessor.mean == [pytest.approx(pixels.mean(), abs=0.01)]
    assert config.data_preprocessor.std == [pytest.approx(pixels.std(), abs=0.01)]


def test_shift_pipeline_of_the_config_moves_the_image_by_up_to_a_pixel(root):
    from mmengine.config import Config

    init_default_scope('mmpretrain')
    config = Config.fromfile(root / 'configs/_base_/datasets/digits.py')
    shifted = DATASETS.build(config.train_dataloader.dataset)
    image = Digits('train')[0]['img'][..., 0]
    padded = np.pad(image, 1)
    allowed = {padded[y : y + 8, x : x + 8].tobytes() for y in range(3) for x in range(3)}
    np.random.seed(0)
    samples = [shifted[0] for _ in range(100)]
    assert samples[0]['inputs'].shape == (1, 8, 8)
    assert samples[0]['inputs'].dtype == torch.uint8
    assert samples[0]['data_samples'].gt_label.tolist() == [0]
    assert {s['inputs'][0].numpy().tobytes() for s in samples} == allowed


def test_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="'val'.*'train' and 'test'"):
        Digits('val')


def test_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(DataError, match='pip install scikit-learn'):
        Digits('train')
