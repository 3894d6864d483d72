import pytest
from mmdet.datasets import CocoDataset
from mmpretrain.datasets.transforms import PackInputs

from prunet_mm.datasets.dataset_config import type_name, unwrapped
from prunet_mm.datasets.layout import require_data
from prunet_mm.errors import ConfigError


def test_data_sets_inside_of_others_are_found():
    parts = [dict(type='Digits', split=split) for split in ('train', 'test')]
    repeated = dict(type='RepeatDataset', times=2, dataset=parts[1])
    assert list(unwrapped(dict(type='ConcatDataset', datasets=[parts[0], repeated]))) == parts


def test_types_are_known_without_their_scope():
    names = [type_name(dict(type=t)) for t in ('CocoDataset', 'mmdet.CocoDataset', CocoDataset)]
    assert names == ['CocoDataset'] * 3


@pytest.mark.parametrize(
    ('dataset', 'sentence'),
    [
        (None, 'train_dataloader.dataset is None: expected a data set'),
        (dict(type='Digits', pipeline=7), 'dataset.pipeline is 7: expected a list'),
        (dict(type='Digits', pipeline=[{}, None]), 'dataset.pipeline.1 is None: expected a trans'),
        (
            dict(type='ConcatDataset', datasets=[dict(type='Digits', pipeline=['PackInputs'])]),
            "a data set in train_dataloader.dataset.pipeline.0 is 'PackInputs'",
        ),
        (dict(type='RepeatDataset', dataset=['x']), "a data set in .* is 'x'"),
    ],
)
def test_what_is_no_data_set_or_no_transform_is_named(dataset, sentence):
    with pytest.raises(ConfigError, match=sentence):
        require_data(dict(train_dataloader=dict(dataset=dataset)), 'train')


def test_a_transform_may_be_an_object():
    dataset = dict(type='Digits', split='train', pipeline=[PackInputs()])
    cfg = dict(train_cfg=dict(type='SearchLoop', max_iters=3), model={})
    require_data(cfg | dict(train_dataloader=dict(batch_size=2, dataset=dataset)), 'train')
