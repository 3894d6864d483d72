import pytest

from prunet_mm.datasets.layout import require_data
from prunet_mm.errors import DataError

LAYOUT = 'data/train/CLASS/IMAGE.jpg'


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'train/cat').mkdir(parents=True)
    (tmp_path / 'empty').mkdir()
    return tmp_path


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
    require_data(dict(type='CustomDataset', data_root=str(root), **folders), LAYOUT)


def test_data_without_folders_need_none():
    require_data(dict(type='Digits', split='train'))


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
        require_data(dict(data_root=str(root), data_prefix=prefix), LAYOUT)
    sentence = str(caught.value)
    assert problem in sentence
    assert LAYOUT in sentence
    assert 'configs/search/prunet_digits.py' in sentence
    assert sentence.endswith('.') and '\n' not in sentence


def test_a_layout_is_not_needed(tmp_path):
    with pytest.raises(DataError, match=r'missing: .*nowhere is no folder; scikit-learn'):
        require_data(dict(data_root=str(tmp_path / 'nowhere')))
