import json

import cv2
import numpy as np
import onnx
import pytest
import torch

from prunet_mm.deploy.detector import model_of
from prunet_mm.deploy.network import build_network
from prunet_mm.engine.cli import load_config

DETECTOR = 'configs/det/retinanet_prunet_digits.py'
CLASSIFIER = 'configs/cls/prunet_digits.py'


@pytest.fixture
def detector(root, tmp_path, spread_scores):
    """Weights of a detector that finds boxes of many scores."""
    torch.manual_seed(0)
    model = model_of(load_config(root / DETECTOR))
    model.init_weights()
    spread_scores(model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'detector.pth')
    return tmp_path / 'detector.pth'


@pytest.fixture
def classifier(root, tmp_path):
    torch.manual_seed(0)
    module = build_network(load_config(root / CLASSIFIER), 'model').module
    torch.save(dict(state_dict=module.state_dict()), tmp_path / 'classifier.pth')
    return tmp_path / 'classifier.pth'


@pytest.fixture
def infer(tool, tmp_path):
    """Run the tool; returns what it wrote and printed."""

    def infer(*args, code=0):
        out = tmp_path / 'out'
        found, printed, errors = tool('infer', *args, '--out-dir', out)
        assert found == code, (printed, errors)
        return json.loads((out / 'predictions.json').read_text()), out, printed, errors

    return infer


def boxes(results):
    return np.array([[*a['bbox'], a['score'], a['category_id']] for a in results['annotations']])


def test_a_file_alone_finds_what_config_and_checkpoint_do(infer, tool, scenes, detector, tmp_path):
    images = scenes / 'val'
    first, out, printed, _ = infer(DETECTOR, detector, images)
    pictures = sorted(path.name for path in out.iterdir())
    file = tmp_path / 'detector.onnx'
    code, _, err = tool('export', DETECTOR, detector, '--images', images, '--out', file)
    assert code == 0, err
    second, *_ = infer(file, images)
    assert first['categories'] == second['categories']
    assert first['images'] == second['images'] and len(first['images']) == 2
    assert len(boxes(first)) == 100
    np.testing.assert_allclose(boxes(first), boxes(second), atol=1e-2)
    assert pictures == ['000001.jpg', '000002.jpg', 'predictions.json']
    assert cv2.imread(str(out / pictures[0])).shape == (576, 576, 3)  # 96 px enlarged
    (line,) = [line for line in printed.splitlines() if line.startswith('000001.jpg: ')]
    for part in ('reading', 'preparing', 'network', 'post-processing'):
        assert part in line
    assert 'median of 2 images' in printed


def test_the_results_are_what_pycocotools_reads(infer, scenes, detector):
    from pycocotools.coco import COCO

    _, out, *_ = infer(DETECTOR, detector, scenes / 'val')
    coco = COCO(out / 'predictions.json')
    (box, *_) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert box['area'] == pytest.approx(box['bbox'][2] * box['bbox'][3])


def test_the_best_classes_of_photographs(infer, scenes, classifier):
    results, out, printed, _ = infer(CLASSIFIER, classifier, scenes / 'val')
    assert len(results['annotations']) == 2 * 5
    scores = [a['score'] for a in results['annotations'] if a['image_id'] == 1]
    assert scores == sorted(scores, reverse=True)
    assert '%' in printed
    assert cv2.imread(str(out / '000001.jpg')).shape[0] > 576  # a list below the image


def test_a_video_becomes_a_video(infer, detector, tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 48))
    for level in (10, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    results, out, printed, _ = infer(DETECTOR, detector, path)
    assert [image['frame'] for image in results['images']] == [0, 1]
    assert 'clip.avi, frame 1: ' in printed
    video = cv2.VideoCapture(str(out / 'clip.mp4'))
    assert [video.read()[0] for _ in range(3)] == [True, True, False]
    assert sorted(p.name for p in out.iterdir()) == ['clip.mp4', 'predictions.json']


def test_an_image_that_cannot_be_read_is_named_and_the_others_go_on(infer, scenes, detector):
    broken = scenes / 'val/000000.jpg'
    broken.write_bytes(b'no image')
    results, _, _, errors = infer(DETECTOR, detector, scenes / 'val', code=2)
    assert len(results['images']) == 2
    assert errors.count(str(broken)) == 2
    assert f'error: 1 of 3 files could not be read: {broken}' in errors


def test_images_of_one_name_get_pictures_of_their_own(infer, scenes, detector):
    image, other = scenes / 'val/000001.jpg', scenes / 'train/000001.jpg'
    _, out, *_ = infer(DETECTOR, detector, image, other)
    assert sorted(p.name for p in out.glob('*.jpg')) == ['000001.jpg', '000001_2.jpg']


@pytest.fixture
def foreign(tmp_path):
    """An ONNX file that has nothing to do with this package."""
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / 'foreign.onnx')
    return tmp_path / 'foreign.onnx'


def test_files_of_something_else_are_one_sentence(refused, foreign, scenes, tmp_path):
    image = scenes / 'val/000001.jpg'
    (tmp_path / 'text.onnx').write_text('no model')
    for file, words in (
        (foreign, 'does not say how images are prepared'),
        (tmp_path / 'text.onnx', 'ONNX Runtime cannot load it'),
        (tmp_path / 'nowhere.onnx', 'there is no such file'),
    ):
        sentence = refused(image, '--out-dir', tmp_path / 'out', name='infer', config=file)
        assert sentence.startswith(f'{file}: ') and words in sentence


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['nowhere.pth', '{image}'], 'nowhere.pth: there is no such checkpoint'),
        (['{weights}', 'nowhere.jpg'], 'nowhere.jpg: there is no such image'),
        (['{weights}', '{image}', '--out-dir', '{folder}'], 'the images are taken from there'),
        (['{weights}', '{folder}', '--out-dir', '{folder}/out'], 'the images are taken from there'),
    ],
)
def test_bad_input_is_one_sentence(refused, scenes, detector, args, words, tmp_path):
    names = dict(image=scenes / 'val/000001.jpg', folder=scenes / 'val', weights=detector)
    args = [arg.format(**names) for arg in args]
    if '--out-dir' not in args:
        args += ['--out-dir', tmp_path / 'out']
    assert words in refused(*args, name='infer', config=DETECTOR)


def test_a_config_without_images_or_checkpoint_is_told_the_usage(tool):
    code, _, err = tool('infer', DETECTOR, 'image.jpg')
    assert code == 2
    assert 'after a config come its checkpoint and at least one image' in err
