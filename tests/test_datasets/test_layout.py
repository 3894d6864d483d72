import json

import pytest

from prunet_mm.datasets.layout import require_data, unwrapped
from prunet_mm.errors import ConfigError, DataError

LAYOUT = 'data/train/CLASS/IMAGE.jpg'


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'train/cat').mkdir(parents=True)
    (tmp_path / 'empty').mkdir()
    return tmp_path


def config(split='train', evaluator=None, layout=None, **dataset):
    loader = {f'{split}_dataloader': dict(dataset=dataset), f'{split}_evaluator': evaluator}
    return loader | dict(data_layout=layout)


@pytest.mark.parametrize(
    'folders',
    [
        dict(),
        dict(data_prefix='train'),
        dict(data_prefix=dict(img_path='train')),
        dict(data_prefix=''),
    ],
)
def test_folders_that_are_there_are_fine(root, folders):
    require_data(config(type='CustomDataset', data_root=str(root), **folders), 'train')


def test_data_without_folders_need_none():
    require_data(config(type='Digits', split='train'), 'train')


def test_only_the_splits_that_are_used_are_looked_at():
    require_data(config('val', data_root='nowhere'), 'train', 'test')
    with pytest.raises(DataError, match='nowhere'):
        require_data(config('val', data_root='nowhere'), 'train', 'val')


@pytest.mark.parametrize(
    ('prefix', 'problem'),
    [
        ('val', 'val is no folder'),
        (dict(img_path='train', ann_path='labels'), 'labels is no folder'),
        ('empty', 'empty is empty'),
    ],
)
def test_what_is_missing_is_named_with_the_layout(root, prefix, problem):
    with pytest.raises(DataError) as caught:
        require_data(config(layout=LAYOUT, data_root=str(root), data_prefix=prefix), 'train')
    sentence = str(caught.value)
    assert problem in sentence
    assert LAYOUT in sentence
    assert 'configs/search/prunet_digits.py' in sentence
    assert sentence.endswith('.') and '\n' not in sentence


def test_a_layout_is_not_needed(tmp_path):
    with pytest.raises(DataError, match=r'missing: .*nowhere is no folder; scikit-learn'):
        require_data(config(data_root=str(tmp_path / 'nowhere')), 'train')


def test_data_sets_inside_of_others_are_found():
    parts = [dict(type='Digits', split=split) for split in ('train', 'test')]
    repeated = dict(type='RepeatDataset', times=2, dataset=parts[1])
    assert list(unwrapped(dict(type='ConcatDataset', datasets=[parts[0], repeated]))) == parts


def test_missing_coco_names_the_embedded_example(tmp_path):
    dataset = dict(type='mmdet.CocoDataset', ann_file='train.json')
    with pytest.raises(DataError) as caught:
        require_data(config(data_root=str(tmp_path / 'coco'), **dataset), 'train')
    assert 'coco is no folder' in str(caught.value)
    for command in (
        'python tools/dataset_converters/digits_to_coco.py',
        'python tools/train.py configs/det/retinanet_prunet_digits.py',
    ):
        assert command in str(caught.value)
    (tmp_path / 'train').mkdir()
    with pytest.raises(DataError, match=r'annotations are missing: .*train.json is no file'):
        require_data(config(data_root=str(tmp_path), **dataset), 'train')


def test_predictions_are_compared_with_the_annotations_of_their_images(root):
    (root / 'val.json').write_text(json.dumps(dict(images=[])))
    dataset = dict(type='CocoDataset', data_root=str(root), ann_file='val.json')
    evaluator = [dict(type='CocoMetric', ann_file=str(root / 'train.json'))]
    with pytest.raises(DataError, match=r'val_evaluator.ann_file is .*train.json.*val.json'):
        require_data(config('val', evaluator, **dataset), 'val')
    # the same file, by another path, so that what comes next is its content
    evaluator = [dict(type='CocoMetric', ann_file=f'{root}/empty/../val.json')]
    with pytest.raises(DataError, match='has no images'):
        require_data(config('val', evaluator, **dataset), 'val')


@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: dict(architecture=model)])
def test_a_head_with_another_number_of_classes_is_refused(root, wrap):
    (root / 'train.json').touch()
    metainfo = dict(classes=('cat', 'dog'))
    dataset = dict(type='CocoDataset', data_root=str(root), ann_file='train.json')
    cfg = config(metainfo=metainfo, **dataset)
    cfg['model'] = wrap(dict(bbox_head=dict(num_classes=80)))
    with pytest.raises(ConfigError, match='num_classes is 80, but the data set has 2 classes'):
        require_data(cfg, 'train')
    cfg['model'] = wrap(dict(bbox_head=dict(num_classes=2)))
    with pytest.raises(DataError, match='is not JSON'):
        require_data(cfg, 'train')
