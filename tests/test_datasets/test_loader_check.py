import pytest
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS

import prunet_mm
from prunet_mm.datasets.layout import require_data
from prunet_mm.datasets.loader_check import (
    collate_function,
    num_classes,
    require_batches,
    require_num_classes,
    require_separable,
)
from prunet_mm.errors import ConfigError, DataError

DIGITS = dict(type='Digits', split='train')  # 1,437 images
COCO = dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog')))


@pytest.fixture(autouse=True)
def registered():
    prunet_mm.register_all_modules()


@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: dict(architecture=model)])
@pytest.mark.parametrize(
    'model',
    [
        lambda n: dict(bbox_head=dict(num_classes=n)),
        lambda n: dict(roi_head=dict(bbox_head=dict(num_classes=n))),
        lambda n: dict(roi_head=dict(bbox_head=[dict(num_classes=2), dict(num_classes=n)])),
    ],
)
def test_a_head_with_another_number_of_classes_is_refused(wrap, model):
    with pytest.raises(ConfigError, match='num_classes is 80, but the data set has 2 classes'):
        require_num_classes(wrap(model(80)), COCO)
    require_num_classes(wrap(model(2)), COCO)


def test_data_sets_of_ours_know_their_classes():
    with pytest.raises(ConfigError, match='head.num_classes is 9, but the data set has 10'):
        require_data(
            dict(train_dataloader=dict(dataset=DIGITS), model=dict(head=dict(num_classes=9))),
            'train',
        )


def test_models_that_do_not_say_how_many_classes_they_have():
    require_num_classes(dict(), COCO)
    require_num_classes(dict(head=None), dict(type='Unknown'))
    assert num_classes(dict(backbone=dict())) is None


def train(dataset=DIGITS, train_cfg=None, **loader):
    return dict(train_dataloader=dict(dataset=dataset, **loader), train_cfg=train_cfg)


@pytest.mark.parametrize(
    'loader',
    [
        dict(batch_size=2048, drop_last=True),
        dict(batch_size=2048, batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True)),
        dict(batch_size=64, drop_last=True, dataset=dict(DIGITS, indices=50)),
        dict(batch_size=64, drop_last=True, dataset=dict(DIGITS, indices=[3, 4])),
        dict(
            batch_size=150,
            drop_last=True,
            dataset=dict(type='RepeatDataset', times=2, dataset=dict(DIGITS, indices=50)),
        ),
    ],
)
def test_fewer_images_than_a_batch(loader):
    with pytest.raises(ConfigError, match=r'is less than a batch of \d+, and drops'):
        require_batches(train(**loader), 'train', {})
    loader = {k: v for k, v in loader.items() if k not in ('drop_last', 'batch_sampler')}
    require_batches(train(**loader), 'train', {})  # a small batch is one


@pytest.mark.parametrize('indices', [0, []])
def test_no_images_at_all(indices):
    cfg = dict(train_dataloader=dict(dataset=DIGITS | dict(indices=indices), batch_size=2))
    with pytest.raises(ConfigError, match='train_dataloader.dataset has no images'):
        require_batches(cfg, 'train', {})


def test_enough_images_and_endless_ones(monkeypatch):
    require_batches(train(batch_size=64, drop_last=True), 'train', {})
    endless = dict(type='InfiniteSampler')
    require_batches(train(batch_size=2048, drop_last=True, sampler=endless), 'train', {})
    require_batches(train(dict(type='Some', data_root='x'), drop_last=True), 'train', {})
    monkeypatch.setenv('WORLD_SIZE', '32')
    with pytest.raises(ConfigError, match='a batch of 64 for each of 32 processes'):
        require_batches(train(batch_size=64, drop_last=True), 'train', {})


def test_images_that_were_counted(tmp_path):
    dataset = dict(type='CocoDataset', data_root='x')
    with pytest.raises(ConfigError, match='has 3 images, which is less than a batch of 4'):
        require_batches(train(dataset, batch_size=4, drop_last=True), 'train', {id(dataset): 3})


def test_epochs_and_evaluations_end():
    endless = dict(type='InfiniteSampler')
    require_batches(train(sampler=endless, train_cfg=dict(by_epoch=False)), 'train', {})
    with pytest.raises(ConfigError, match=r'an epoch \(train_cfg.by_epoch\) never ends'):
        require_batches(train(sampler=endless, train_cfg=dict(by_epoch=True)), 'train', {})
    with pytest.raises(ConfigError, match='of which an evaluation never ends'):
        require_batches(dict(val_dataloader=dict(dataset=DIGITS, sampler=endless)), 'val', {})
    with pytest.raises(ConfigError, match='drop_last leaves images out of an evaluation'):
        require_batches(dict(val_dataloader=dict(dataset=DIGITS, drop_last=True)), 'val', {})


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='MultiImageMixDataset', dataset=DIGITS, pipeline=[]),
        dict(type='RepeatDataset', dataset=dict(type='mmdet.MultiImageMixDataset', dataset=DIGITS)),
        dict(DIGITS, pipeline=[dict(type='mmdet.CachedMosaic')]),
        dict(
            type='ConcatDataset',
            datasets=[DIGITS, dict(DIGITS, pipeline=[dict(type='CachedMixUp')])],
        ),
    ],
)
def test_a_search_takes_one_image_at_a_time(dataset):
    with pytest.raises(DataError, match='puts several images into one, while a search divides'):
        require_data(train(dataset, train_cfg=dict(type='SearchLoop')), 'train')
    require_data(train(dataset), 'train')  # in a training it may
    require_separable(dict(type='RepeatDataset', dataset=DIGITS))


def test_the_function_that_collates_is_found_with_its_arguments():
    @FUNCTIONS.register_module(force=True)
    def collate_with(samples, word):
        return samples, word

    def found(**settings):
        return collate_function(dict(collate_fn=settings) if settings else {}, 'a')

    assert found(type='default_collate') is found(type=default_collate) is default_collate
    assert found()([1]) == [1]
    assert found(type='collate_with', word='x')([1]) == ([1], 'x')


@pytest.mark.parametrize('config', [dict(type='defualt_collate'), dict(word=1)])
def test_a_function_that_is_not_there_is_refused(config):
    with pytest.raises(ConfigError, match=r'a\.collate_fn: there is no .*default_collate'):
        collate_function(dict(collate_fn=config), 'a')
