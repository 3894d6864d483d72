import json

import pytest

CONFIG = 'configs/det/retinanet_prunet_digits.py'


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_tells_what_every_file_holds(tool, scenes, of_scenes):
    code, out, err = tool('check_dataset', CONFIG, *of_scenes)
    assert (code, err) == (0, '')
    train, val = out.splitlines()
    assert train.startswith(f'train: {scenes}/annotations/train.json: 4 images, boxes: 0 ')
    assert val.startswith(f'val: {scenes}/annotations/val.json: 2 images, boxes: 0 ')


def test_every_problem_is_a_line(tool, scenes, of_scenes):
    (scenes / 'train/000001.jpg').write_text('no image')
    (scenes / 'train/000002.jpg').write_text('no image')
    change(scenes / 'annotations/val.json', annotations=[])
    code, _, err = tool('check_dataset', CONFIG, *of_scenes)
    assert code == 2
    lines = err.splitlines()
    assert [line.split(':')[0] for line in lines] == ['error', 'error', 'warning']
    assert '000001.jpg: is not an image' in lines[0]
    code, _, err = tool('check_dataset', CONFIG, '--no-images', *of_scenes)
    assert code == 0
    assert err == f'{lines[2]}\n'


def test_a_config_without_annotations(refused):
    sentence = refused(name='check_dataset', config='configs/cls/prunet_digits.py')
    assert sentence == "configs/cls/prunet_digits.py: names no annotations in COCO's format"


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
