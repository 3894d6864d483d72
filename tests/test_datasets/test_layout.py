import json

import pytest
from PIL import Image

from prunet_mm.datasets.image_check import HEADERS
from prunet_mm.datasets.layout import check_data, require_data
from prunet_mm.errors import DataError

LAYOUT = 'data/train/CLASS/IMAGE.jpg'


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'train/cat').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(tmp_path / 'train/cat/1.png')
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
    require_data(dict(train_dataloader=dict(dataset=dict(type='Digits', split='train'))), 'train')


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


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """A config of three splits with two class folders each."""
    for split in ('train', 'val', 'test'):
        for name in ('cat', 'dog'):
            save(tmp_path / split / name / f'{split}.png')
    return {'model': dict(head=dict(num_classes=2))} | {
        f'{split}_dataloader': dict(
            dataset=dict(type='CustomDataset', data_root=str(tmp_path), data_prefix=split)
        )
        for split in ('train', 'val', 'test')
    }


SPLITS = ('train', 'val', 'test')


def test_folders_that_fit_each_other_are_fine(folders, recwarn):
    require_data(folders, *SPLITS)
    assert [w for w in recwarn if issubclass(w.category, UserWarning)] == []


@pytest.mark.parametrize('used', [('train', 'val'), ('val',)])
def test_class_folders_that_differ_from_those_for_training(folders, tmp_path, used):
    (tmp_path / 'val/cat').rename(tmp_path / 'val/ant')
    with pytest.raises(DataError, match="for val lacks 'cat' and has 'ant' as well"):
        require_data(folders, *used)
    if used == ('val',):  # on another machine
        (tmp_path / 'train').rename(tmp_path / 'gone')
        require_data(folders, *used)


@pytest.fixture
def in_order(tmp_path):
    """The config of a data set with an image of a cat, its classes in some order."""

    def of_boxes(*classes):
        content = dict(
            images=[dict(id=1, file_name='1.png', width=8, height=8)],
            annotations=[
                dict(id=i, image_id=1, category_id=i, bbox=[1, i, 4, 4], area=16, iscrowd=0)
                for i in (1, 2)
            ],
            categories=[dict(id=i, name=name) for i, name in enumerate(classes, 1)],
        )
        file = f'{"".join(classes)}.json'
        (tmp_path / file).write_text(json.dumps(content))
        return dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file=file,
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
        )

    def of_lists(*classes):
        (tmp_path / 'list.txt').write_text('1.png 0\n1.png 1\n')
        files = dict(data_root=str(tmp_path), data_prefix='', ann_file='list.txt')
        return dict(type='CustomDataset', metainfo=dict(classes=classes), **files)

    save(tmp_path / '1.png')
    return dict(boxes=of_boxes, lists=of_lists)


@pytest.mark.parametrize('kind', ['boxes', 'lists'])
def test_classes_in_another_order_than_for_training(in_order, kind):
    """Each data set agrees with its file, and the labels of one mean other classes than those."""
    one, other = in_order[kind]('cat', 'dog'), in_order[kind]('dog', 'cat')
    for train, val, split in (
        (one, other, 'val'),
        (dict(type='ConcatDataset', datasets=[one, other]), one, 'train'),
    ):
        cfg = dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val))
        words = rf"for {split} is '(dog|cat)', .*, of one for train '(cat|dog)'.*other classes"
        with pytest.raises(DataError, match=words):
            require_data(cfg, split)
    require_data(dict(train_dataloader=dict(dataset=one), val_dataloader=dict(dataset=one)), 'val')


@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: dict(architecture=model)])
def test_folders_and_the_head_of_a_network_or_a_search(folders, wrap):
    folders['model'] = wrap(dict(head=dict(num_classes=3)))
    with pytest.raises(DataError, match='has 2 class folders, but the head has num_classes=3'):
        require_data(folders, 'train')


def test_images_in_two_splits(folders):
    folders['val_dataloader']['dataset']['data_prefix'] = 'train'
    with pytest.warns(UserWarning, match='2 of 2 images for val are trained on as well'):
        require_data(folders, *SPLITS)


def test_a_data_set_for_two_purposes_is_looked_into_once(folders):
    folders['test_dataloader'] = folders['val_dataloader']
    assert [split for split, _ in check_data(folders, SPLITS, HEADERS)] == ['train', 'val']


def test_what_is_validated_has_to_be_found(tmp_path):
    image = dict(id=1, file_name='1.png', width=8, height=8)
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0, ignore=1)
    categories = [dict(id=1, name='cat')]
    content = dict(images=[image], annotations=[box], categories=categories)
    (tmp_path / 'val.json').write_text(json.dumps(content))
    save(tmp_path / '1.png')
    cfg = config(
        'val',
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='val.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('cat',)),
    )
    ((_, report),) = check_data(cfg, ['val'], HEADERS)
    assert (report.errors, report.counts) == ([], dict(cat=1))
    assert 'which evaluations do not ask for' in report.warnings[0]
