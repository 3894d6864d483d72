import json
import math

import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from prunet_mm.datasets.coco_check import check_annotations, class_names, is_coco
from prunet_mm.datasets.image_check import HEADERS
from prunet_mm.errors import DataError


def annotation(number, **fields):
    known = dict(id=number, image_id=1, category_id=7, bbox=[10, 10, 20, 10], area=200, iscrowd=0)
    return known | fields


@pytest.fixture
def content():
    """A file without a flaw; tests bring one in."""
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in (1, 2, 3)],
        annotations=[
            annotation(1),
            annotation(2, bbox=[30, 20, 34, 28], area=952),
            annotation(3, image_id=2, category_id=4),
        ],
        categories=[dict(id=7, name='cat'), dict(id=4, name='dog')],
    )


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / 'images').mkdir()
    for number in (1, 2, 3):
        Image.new('RGB', (64, 48)).save(tmp_path / f'images/{number}.jpg')
    return dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
    )


@pytest.fixture
def report(content, dataset, tmp_path):
    """Check the content; options go to the check."""

    def report(**options):
        (tmp_path / 'train.json').write_text(json.dumps(content))
        return check_annotations(dataset, **options)

    return report


def only(sentences, report):
    (sentence,) = sentences
    assert '\n' not in sentence
    assert str(report.path) in sentence
    return sentence


def test_what_is_right_is_counted(report):
    found = report(depth=HEADERS)
    assert (found.errors, found.warnings) == ([], [])
    assert (found.images, found.counts) == (3, dict(cat=2, dog=1))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{"images": [', 'is not JSON'),
        ('\x00\x01', 'is not JSON'),
        ('[]', "is not in COCO's format"),
        ('{"images": [{"id": 1}]}', 'has no list of categories'),
        ('{"images": 3, "categories": []}', 'has no list of images'),
        ('{"images": [1], "categories": []}', 'has no list of images'),
        ('{"images": [], "categories": []}', 'has no images: the list of them is empty'),
        ('{"images": [{"id": 1}], "categories": []}', 'has no categories: the list'),
    ],
)
def test_files_that_are_something_else(dataset, tmp_path, text, words):
    (tmp_path / 'train.json').write_text(text)
    found = check_annotations(dataset)
    assert words in only(found.errors, found)


def test_a_file_that_is_missing(dataset):
    found = check_annotations(dataset)
    assert 'cannot be read: No such file' in only(found.errors, found)


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (('cat', 'cow', 'dog'), "has no category 'cow', while its categories are 'cat', 'dog'"),
        (
            ('dog', 'cat'),
            "in the order 'cat', 'dog', but the config has metainfo.classes 'dog', 'c",
        ),
    ],
)
def test_categories_that_differ_from_the_classes(report, dataset, classes, words):
    dataset['metainfo']['classes'] = classes
    found = report()
    assert words in only(found.errors, found)


def test_cocos_classes_are_those_of_mmdet():
    assert class_names(dict()) == CocoDataset.METAINFO['classes']


def test_classes_are_cocos_where_the_config_has_none(report, dataset):
    del dataset['metainfo']
    found = report()
    assert "has no category 'person', 'bicycle'" in only(found.errors, found)
    assert 'and 68 more' in found.errors[0]


def test_a_text_is_no_list_of_classes_but_may_name_a_file_with_one(report, dataset, tmp_path):
    dataset['metainfo']['classes'] = 'cat'
    assert "metainfo.classes is the text 'cat', which is no file" in report().errors[0]
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    dataset['metainfo']['classes'] = str(tmp_path / 'classes.txt')
    assert report().counts == dict(cat=2, dog=1)


def test_categories_that_are_no_classes_are_left_out(report, dataset):
    dataset['metainfo']['classes'] = ('dog',)
    found = report()
    assert "boxes of 'cat' are left out" in only(found.warnings, found)
    assert (found.errors, found.counts) == ([], dict(dog=1))


def test_a_class_that_no_training_can_learn(report, content, dataset):
    content['annotations'].pop()
    assert "no box is of class 'dog', which cannot be learnt" in report().warnings[0]
    dataset['test_mode'] = True
    assert report().warnings == []


@pytest.mark.parametrize(
    ('key', 'field', 'value', 'words'),
    [
        ('images', 'width', None, '1 of 3 images are incomplete: the first, id 1, has no width'),
        ('images', 'width', 0, 'has a width and height of (0, 48) pixels'),
        ('images', 'height', '48', "has a width and height of (64, '48') pixels"),
        ('images', 'file_name', 7, 'has 7 as its file_name'),
        ('images', 'id', 2, '2 images have the same id 2'),
        ('images', 'id', [1], 'has [1] as its id'),
        ('images', 'id', True, 'has True as its id'),
        ('images', 'id', '1', "1 of 3 images have a text as their id, the first '1', the others"),
        ('images', 'width', 10**400, 'has a width and height'),
        (
            'annotations',
            'bbox',
            None,
            '1 of 3 annotations are incomplete: the first, id 1, has no bbox',
        ),
        ('annotations', 'area', None, 'has no area'),
        ('annotations', 'id', 2, '2 annotations have the same id 2'),
        ('annotations', 'category_id', {}, 'has {} as its category_id'),
        ('annotations', 'bbox', [1, 2, 3], '1 of 3 boxes are not four finite numbers'),
        ('annotations', 'bbox', [1, 2, 3, math.nan], 'the first is annotation 1'),
        ('annotations', 'area', '200', 'boxes are not four finite numbers'),
        ('annotations', 'bbox', [1, 2, 3, 10**400], 'boxes are not four finite numbers'),
        ('annotations', 'ignore', '0', "has '0' as its ignore"),
        ('annotations', 'iscrowd', '0', "has '0' as its iscrowd"),
        ('categories', 'id', 4, 'every category takes'),
        ('categories', 'name', None, 'every category takes a "name" and, as its "id"'),
    ],
)
def test_entries_that_cannot_be_used(report, content, key, field, value, words):
    content[key][0][field] = value
    if value is None:
        del content[key][0][field]
    found = report()
    assert words in only(found.errors, found)


def test_crowds_count_as_nothing_to_learn_from_or_to_find(report, content):
    content['annotations'][0]['iscrowd'] = 1
    assert report().counts == dict(cat=1, dog=1)


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        (..., '1 of 3 annotations are incomplete: the first, id 1, has no iscrowd'),
        (None, 'has None'),
    ],
)
def test_evaluation_asks_whether_a_box_is_a_crowd(report, content, dataset, value, words):
    content['annotations'][0]['iscrowd'] = value
    if value is ...:
        del content['annotations'][0]['iscrowd']
    assert report().errors == []  # a training does not
    dataset['test_mode'] = True
    found = report()
    assert words in only(found.errors, found)


@pytest.mark.parametrize('annotations', [None, [], [annotation(1, iscrowd=1)]])
def test_nothing_to_learn_from_is_an_error_and_nothing_to_evaluate_is_not(
    report, content, dataset, annotations
):
    content['annotations'] = annotations
    if annotations is None:
        del content['annotations']
    assert any(
        'not one of its 3 images has a box that could be learnt' in e for e in report().errors
    )
    dataset['test_mode'] = True
    found = report()
    assert 'could be evaluated' in found.warnings[-1]
    assert found.errors == []


def test_images_that_are_missing(report, content, tmp_path):
    content['images'][0]['file_name'] = 'deeper/1.jpg'
    (tmp_path / 'images/2.jpg').unlink()
    found = report()
    assert only(found.errors, found) == (
        f'2 of 3 images of {found.path} are missing, the first is {tmp_path}/images/deeper/1.jpg'
    )


@pytest.mark.parametrize('prefix', [None, 'images/', dict(img_path='images/')])
def test_a_config_that_does_not_say_where_the_images_are(report, dataset, prefix):
    dataset['data_prefix'] = prefix
    assert 'has to be a dict with the folder of the images as its img' in report().errors[0]


def test_two_entries_for_one_image(report, content):
    content['images'][1]['file_name'] = '1.jpg'
    assert "2 images have the file_name '1.jpg'" in report().warnings[0]


@pytest.mark.parametrize(
    ('encoding', 'name'),
    [
        ('utf-8-sig', 'UTF-8 with a byte order mark'),
        ('utf-16', 'UTF-16'),
        ('utf-16-le', 'UTF-16'),
        ('utf-16-be', 'UTF-16'),
        ('utf-32', 'UTF-32'),
        ('latin-1', 'something else, with byte 0xe9 in it'),
    ],
)
def test_encodings_that_trainings_do_not_read(content, dataset, tmp_path, encoding, name):
    content['images'][0]['file_name'] = 'Caf\xe9.jpg'
    text = json.dumps(content, ensure_ascii=False)
    (tmp_path / 'train.json').write_bytes(text.encode(encoding))
    found = check_annotations(dataset)
    assert f'is written as {name}, which trainings do not read' in only(found.errors, found)


def test_a_filter_is_told_of(report, content, dataset):
    dataset['filter_cfg'] = dict(filter_empty_gt=True, min_size=32)
    found = report()
    assert '1 of 3 images are not trained on' in only(found.warnings, found)
    assert (found.used, found.warnings[0][-4:]) == (2, 'id 3')
    dataset['filter_cfg'] = dict(min_size=50)
    assert '3 of 3 images are not trained on' in report().errors[0]
    dataset['test_mode'] = True
    assert report().errors == []


def test_requiring_raises_the_first_error_and_warns(report, content, dataset):
    content['annotations'][0]['bbox'] = [10, 10, 0, 10]
    report()
    with pytest.warns(UserWarning, match='have a side below a pixel'):
        check_annotations(dataset).require()
    content['annotations'][1]['bbox'] = [0]
    content['images'][0]['file_name'] = 'nowhere.jpg'
    report()
    with pytest.warns(UserWarning), pytest.raises(DataError) as caught:
        check_annotations(dataset).require()
    assert str(caught.value).endswith('annotation 2 (tools/check_dataset.py lists 1 more)')


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [('CocoDataset', True), ('mmdet.CocoDataset', True), ('CocoPanopticDataset', False)],
)
def test_cocos_format_is_known_by_the_type(kind, expected):
    assert is_coco(dict(type=kind)) is expected
