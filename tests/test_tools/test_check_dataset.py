import json

import pytest
from PIL import Image

from prunet_mm.datasets.image_check import Depth

CONFIG = 'configs/det/retinanet_prunet_digits.py'


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_tells_what_every_file_holds(tool, scenes, of_scenes):
    code, out, err = tool('check_dataset', CONFIG, *of_scenes)
    assert code == 0
    assert {line.partition(': no box is of class ')[0] for line in err.splitlines()} <= {
        f'warning: {scenes}/annotations/train.json'
    }  # of so few scenes
    train, val = out.splitlines()
    assert train.startswith(f'train: {scenes}/annotations/train.json: 4 images, boxes: 0 ')
    assert val.startswith(f'val: {scenes}/annotations/val.json: 2 images, boxes: 0 ')


def test_every_problem_is_a_line(tool, scenes, of_scenes):
    (scenes / 'train/000001.jpg').write_text('no image')
    (scenes / 'train/000002.jpg').write_text('no image')
    change(scenes / 'annotations/val.json', annotations=[])
    code, _, err = tool('check_dataset', CONFIG, *of_scenes)
    assert code == 2
    lines = [line for line in err.splitlines() if 'no box is of class' not in line]
    assert [line.split(':')[0] for line in lines] == ['error', 'warning']
    assert '000001.jpg: is not an image' in lines[0]
    assert lines[0].endswith('(2 of 4 images)')
    code, _, err = tool('check_dataset', CONFIG, '--no-images', *of_scenes)
    assert code == 0
    assert lines[1] in err and lines[0] not in err


def test_annotations_are_checked_without_torch(run_python, of_scenes):
    """Which takes longer to import than they take to be checked."""
    code = (
        'import runpy, sys\n'
        f'sys.argv = {["check_dataset.py", CONFIG, "--no-images", *map(str, of_scenes)]}\n'
        'try:\n'
        '    runpy.run_path("tools/check_dataset.py", run_name="__main__")\n'
        'finally:\n'
        '    print("torch" in sys.modules)\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'False'


def test_a_config_without_annotations(refused):
    sentence = refused(name='check_dataset', config='configs/cls/prunet_digits.py')
    assert sentence.startswith(
        "configs/cls/prunet_digits.py: names no annotations in COCO's format"
    )
    assert sentence.endswith('but train, val, test data of type Digits')


FOLDERS = """
_base_ = '{root}/configs/cls/prunet_cifar10.py'
train_dataloader = dict(dataset=dict(data_root='{data}'))
val_dataloader = dict(dataset=dict(data_root='{data}'))
test_dataloader = val_dataloader
model = dict(head=dict(num_classes=2))
"""


@pytest.fixture
def folders(root, tmp_path):
    """A config for two classes with an image each, and the folder of the data."""
    for name in ('train/cat/a', 'train/dog/b', 'test/cat/c', 'test/dog/d'):
        path = tmp_path / f'data/{name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 90).save(path)
    config = tmp_path / 'folders.py'
    config.write_text(FOLDERS.format(root=root, data=tmp_path / 'data'))
    return config, tmp_path / 'data'


def test_class_folders_are_looked_into(tool, folders):
    config, data = folders
    code, out, err = tool('check_dataset', config)
    assert (code, err) == (0, '')
    assert out.splitlines() == [
        f'train: {data}/train: 2 images, images: cat 1, dog 1',
        f'val: {data}/test: 2 images, images: cat 1, dog 1',
    ]


def test_damage_in_any_image_is_found_by_decoding_all(tool, folders, monkeypatch):
    config, data = folders
    path = data / 'train/dog/b.png'
    Image.effect_noise((32, 32), 90).save(path)
    with open(path, 'r+b') as file:
        file.seek(400)
        file.write(bytes(60))
    monkeypatch.setattr('prunet_mm.datasets.image_check.HEADERS', Depth(1000, 0))
    assert tool('check_dataset', config)[0] == 0
    code, _, err = tool('check_dataset', config, '--decode')
    assert code == 2
    assert f'error: {path}: is no whole image' in err


@pytest.mark.parametrize('name', ['train', 'test', 'check_dataset'])
def test_folders_that_differ_between_splits_stop_every_tool(refused, folders, tmp_path, name):
    config, data = folders
    (data / 'test/cat').rename(data / 'test/ant')
    args = [] if name == 'check_dataset' else ['--work-dir', tmp_path / 'work']
    if name == 'test':
        args.append(tmp_path / 'none.pth')
    sentence = refused(*args, name=name, config=config)
    assert sentence.startswith(
        f'{data}/test: this folder for {"test" if name == "test" else "val"}'
    )
    assert not (tmp_path / 'work').exists()


def corners(scenes):
    path = scenes / 'annotations/train.json'
    annotations = json.loads(path.read_text())['annotations']
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        annotation['bbox'] = [x, y, x + width, y + height]
    change(path, annotations=annotations)


def turned(scenes):
    path = scenes / 'train/000002.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((96, 64), 90).convert('RGB').save(path, exif=exif)
    annotations = scenes / 'annotations/train.json'
    images = json.loads(annotations.read_text())['images']
    images[1].update(width=96, height=64)
    change(annotations, images=images)


def of_zero_bytes(scenes):
    (scenes / 'train/000003.jpg').write_bytes(b'')


def half_of_an_image(scenes):
    path = scenes / 'train/000003.jpg'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_a_byte_order_mark(scenes):
    path = scenes / 'annotations/train.json'
    path.write_text(path.read_text(), encoding='utf-8-sig')


@pytest.mark.parametrize('name', ['train', 'check_dataset'])
@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (corners, 'would fit as [left, top, right, bottom]'),
        (turned, '000002.jpg: is read as 64 x 96 pixels, but has 96 x 64 by its annotations'),
        (of_zero_bytes, '000003.jpg: is a file of zero bytes'),
        (half_of_an_image, '000003.jpg: is no'),
        (with_a_byte_order_mark, 'is written as UTF-8 with a byte order mark'),
    ],
)
def test_what_is_wrong_is_found_by_the_tool_and_before_a_training(
    tool, scenes, of_scenes, tmp_path, name, spoil, words
):
    spoil(scenes)
    work = ['--work-dir', tmp_path / 'work'] if name == 'train' else []
    code, out, err = tool(name, CONFIG, *work, *of_scenes)
    assert (code, 'Traceback' in err) == (2, False)
    assert any(words in line for line in err.splitlines() if line.startswith('error: ')), err
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(('tool_name', 'split'), [('train', 'train'), ('test', 'val')])
def test_trainings_and_tests_stop_before_they_start(
    refused, scenes, of_scenes, tmp_path, tool_name, split
):
    path = scenes / f'annotations/{split}.json'
    change(path, categories=[dict(id=1, name='zero')])
    checkpoint = [tmp_path / 'none.pth'] if tool_name == 'test' else []
    work = ['--work-dir', tmp_path / 'work']
    sentence = refused(*checkpoint, *work, *of_scenes, name=tool_name, config=CONFIG)
    assert sentence.startswith(f"{path}: has no category '0', '1', '2'")
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('name', ['train', 'check_dataset'])
def test_missing_coco_names_layout_and_example(refused, tmp_path, name):
    root = ['--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/coco']
    sentence = refused(*root, name=name, config='configs/det/retinanet_prunet_coco.py')
    assert sentence.startswith(
        f'The images are missing: {tmp_path}/coco is no folder; expected are'
    )
    assert 'data/coco/annotations/instances_{train,val}2017.json' in sentence
    assert 'python tools/dataset_converters/digits_to_coco.py' in sentence
