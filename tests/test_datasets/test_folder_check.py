import pytest
from mmpretrain.datasets import CustomDataset
from PIL import Image

from prunet_mm.datasets.folder_check import check_folders, compare_folders
from prunet_mm.datasets.image_check import HEADERS


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8)).save(path, format='PNG')


@pytest.fixture
def dataset(tmp_path):
    """The config of a data set with two images in each of three class folders."""
    for name in ('ape', 'bee', 'cat'):
        for number in (1, 2):
            write(tmp_path / f'train/{name}/{number}.png')
    return dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')


def only(sentences):
    (sentence,) = sentences
    assert '\n' not in sentence
    return sentence


def test_what_is_right_is_counted(dataset, tmp_path):
    report = check_folders(dataset, num_classes=3, depth=HEADERS)
    assert (report.errors, report.warnings) == ([], [])
    assert (report.images, report.counts) == (6, dict(ape=2, bee=2, cat=2))
    assert report.unit == 'images'
    assert report.files[0] == f'{tmp_path}/train/ape/1.png'


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX', '@eaDir'])
def test_folders_that_are_no_class(dataset, tmp_path, name):
    (tmp_path / 'train' / name).mkdir()
    errors = check_folders(dataset, num_classes=3).errors
    assert f'the folder {name!r} is no class, but would be taken for one, with label 0' in errors[0]
    read = CustomDataset(tmp_path, 'train', lazy_init=False)
    assert name in read.metainfo['classes']  # which is why


@pytest.mark.parametrize('found', [2, 4])
def test_a_head_for_another_number_of_classes(dataset, found):
    sentence = only(check_folders(dataset, num_classes=found).errors)
    assert f'has 3 class folders, but the head has num_classes={found}' in sentence


def test_an_empty_folder_is_a_class_without_images(dataset, tmp_path):
    (tmp_path / 'train/dog').mkdir()
    report = check_folders(dataset, num_classes=3)
    assert "has 4 class folders, of which 'dog' are empty" in only(report.errors)
    report = check_folders(dataset, num_classes=4)
    assert "there are no images of 'dog'" in only(report.warnings)


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (('ape', 'bee'), 'has 3 class folders, but metainfo.classes names 2'),
        (('bee', 'ape', 'cat'), "metainfo.classes is 'bee', 'ape', 'cat'"),
        (('Affe', 'Biene', 'Katze'), None),  # other names for the same
    ],
)
def test_names_in_the_config(dataset, classes, words):
    dataset['metainfo'] = dict(classes=classes)
    errors = check_folders(dataset).errors
    assert errors == [] if words is None else words in only(errors)


def test_images_that_are_left_out_or_taken_in_unseen(dataset, tmp_path):
    write(tmp_path / 'train/ape/3.webp')
    write(tmp_path / 'train/loose.png')
    write(tmp_path / 'train/bee/.ipynb_checkpoints/1.png')
    write(tmp_path / 'train/bee/._1.png')
    report = check_folders(dataset, num_classes=3)
    assert report.errors == []
    assert '2 images are in no class, or end in none of .jpg' in report.warnings[0]
    assert report.warnings[0].endswith('train/ape/3.webp')
    assert '1 images are in hidden folders inside of classes' in report.warnings[1]
    assert report.counts == dict(ape=2, bee=3, cat=2)
    read = CustomDataset(tmp_path, 'train')
    seen = [str(read.get_data_info(i)['img_path']) for i in range(len(read))]
    assert sorted(seen) == sorted(report.files)


def test_no_images_at_all(tmp_path):
    (tmp_path / 'train/ape').mkdir(parents=True)
    (tmp_path / 'train/ape/notes.txt').touch()
    report = check_folders(dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train'))
    assert 'has no images in a folder per class' in only(report.errors)


def test_images_are_looked_into(dataset, tmp_path):
    (tmp_path / 'train/bee/1.png').write_bytes(b'')
    errors = check_folders(dataset, depth=HEADERS).errors
    assert only(errors) == f'{tmp_path}/train/bee/1.png: is a file of zero bytes (1 of 6 images)'


def test_splits_with_other_folders(dataset, tmp_path):
    for name in ('ape', 'cat', 'dog'):
        write(tmp_path / f'val/{name}/1.png')
    val = dict(dataset, data_prefix=dict(img_path='val'))
    sentence = only(compare_folders(val, 'val', dataset, 'train'))
    assert "this folder for val lacks 'bee' and has 'dog' as well, against" in sentence
    assert list(compare_folders(dataset, 'val', dataset, 'train')) == []


@pytest.mark.parametrize(
    ('lines', 'words'),
    [
        (['ape/1.png 0', 'bee/1.png 3'], 'a label from 0 to 2, and 1 of 2 lines have not: '),
        (['ape/1.png 0', 'bee/1.png'], '1 of 2 lines have not: the first is line 2'),
        (['', 'bee/1.png 1'], 'the first is line 1'),
        (['ape/1.png -1'], 'the first is line 1'),
        ([], 'there are no lines'),
        (['ape/9.png 0'], 'are missing, the first is'),
    ],
)
def test_lists_of_images(dataset, tmp_path, lines, words):
    dataset['ann_file'] = 'list.txt'
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    assert words in only(check_folders(dataset, num_classes=3).errors)


def test_a_list_that_is_right(dataset, tmp_path):
    dataset['ann_file'] = 'list.txt'
    (tmp_path / 'list.txt').write_text('ape/1.png 0\nape/2.png 0\nbee/1.png 1\n')
    report = check_folders(dataset, num_classes=3)
    assert report.errors == []
    assert report.counts == {'0': 2, '1': 1, '2': 0}
    assert "there are no images of '2'" in only(report.warnings)
