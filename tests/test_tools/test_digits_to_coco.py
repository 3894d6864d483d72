import json

import pytest
from PIL import Image

TOOL = 'dataset_converters/digits_to_coco'
SMALL = ('--train', '6', '--val', '3', '--size', '96')


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'data' / 'scenes'


@pytest.fixture
def convert(tool, out):
    return lambda *args: tool(TOOL, '--out', out, *SMALL, *args)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_writes_a_set_that_says_that_it_is_composed(convert, out):
    code, stdout, _ = convert()
    assert (code, stdout) == (0, f'wrote {out}\n')
    assert 'composed, not photographed' in (out / 'README.md').read_text()
    assert '--train 6 --val 3 --size 96 --seed 0' in (out / 'README.md').read_text()
    for split, count in dict(train=6, val=3).items():
        written = json.loads((out / f'annotations/{split}.json').read_text())
        assert written['info']['composed'] is True
        assert written['info']['seed'] == 0
        assert [category['name'] for category in written['categories']] == list('0123456789')
        assert len(written['images']) == len(list((out / split).iterdir())) == count
        for image in written['images']:
            with Image.open(out / split / image['file_name']) as opened:
                assert opened.size == (image['width'], image['height']) == (96, 96)
        assert {a['image_id'] for a in written['annotations']} == set(range(1, count + 1))
        assert all(a['area'] == a['bbox'][2] * a['bbox'][3] > 0 for a in written['annotations'])
    assert list(out.parent.iterdir()) == [out]  # nothing temporary is left


def test_the_same_arguments_give_the_same_set(convert, tool, out, tmp_path):
    convert()
    tool(TOOL, '--out', tmp_path / 'again', *SMALL)
    assert content(tmp_path / 'again') == content(out)
    tool(TOOL, '--out', tmp_path / 'other', *SMALL, '--seed', '1')
    assert content(tmp_path / 'other') != content(out)


def test_a_set_that_is_there_is_kept_and_another_is_not_overwritten(convert, out):
    convert()
    before = content(out)
    assert convert()[:2] == (0, f'{out} is there already\n')
    code, _, err = convert('--seed', '1')
    assert code == 2
    assert err == (
        f'error: {out} holds something else than was asked for: remove it or give another --out\n'
    )
    assert content(out) == before


def test_what_was_interrupted_leaves_nothing(convert, out, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('cv2.imencode', fail)
    assert convert()[0] == 130
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (('--val', '0'), '--val 0: has to be a whole number of at least 1'),
        (('--size', '40'), '--size 40: has to be a whole number of at least 96'),
        (('--seed', '-1'), '--seed -1: has to be a whole number of at least 0'),
    ],
)
def test_numbers_that_make_no_set(convert, out, args, words):
    code, _, err = convert(*args)
    assert (code, err) == (2, f'error: {words}\n')
    assert not out.exists()


def test_a_folder_that_cannot_be_made(tool, tmp_path):
    (tmp_path / 'file').touch()
    code, _, err = tool(TOOL, '--out', tmp_path / 'file' / 'scenes', *SMALL)
    assert code == 2
    assert err.startswith(f'error: cannot write to {tmp_path}/file: ')
