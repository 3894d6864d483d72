from mmdet.datasets import CocoDataset

from prunet_mm.datasets.dataset_config import type_name, unwrapped


def test_data_sets_inside_of_others_are_found():
    parts = [dict(type='Digits', split=split) for split in ('train', 'test')]
    repeated = dict(type='RepeatDataset', times=2, dataset=parts[1])
    assert list(unwrapped(dict(type='ConcatDataset', datasets=[parts[0], repeated]))) == parts


def test_types_are_known_without_their_scope():
    names = [type_name(dict(type=t)) for t in ('CocoDataset', 'mmdet.CocoDataset', CocoDataset)]
    assert names == ['CocoDataset'] * 3
