import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from PIL import Image

from prunet_mm.detection.drawing_hook import DetectionDrawingHook


class Recorder:
    """Stands for the visualizer; keeps what it is asked to draw."""

    def __init__(self):
        self.calls = []

    def add_datasample(self, name, image, data_sample, **options):
        self.calls.append((name, image, data_sample, options))


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(Visualizer, 'get_current_instance', lambda: recorder)
    return recorder


@pytest.fixture
def sample(tmp_path):
    """A function for a sample of an image of a size (width, height), with a box in it."""

    def sample(name, size=(100, 50)):
        Image.fromarray(np.full((*size[::-1], 3), (200, 0, 0), np.uint8)).save(tmp_path / name)
        found = DetDataSample(metainfo=dict(img_path=str(tmp_path / name)))
        box = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        found.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([0]))
        found.pred_instances = InstanceData(bboxes=box + 1, scores=torch.ones(1))
        return found

    return sample


def test_every_nth_image_is_drawn_whatever_the_batches(recorder, sample):
    hook = DetectionDrawingHook(draw=True, interval=3)
    batches = [[sample(f'{i}{j}.png') for j in range(4)] for i in range(2)]
    for number, batch in enumerate(batches):
        hook.after_test_iter(None, number, None, batch)
    assert [name for name, *_ in recorder.calls] == ['00.png', '03.png', '12.png']


def test_small_images_are_drawn_larger_with_their_boxes(recorder, sample, tmp_path):
    hook = DetectionDrawingHook(draw=True, interval=1, test_out_dir=str(tmp_path / 'out'))
    small = sample('small.jpg')
    hook.after_test_iter(None, 0, None, [small])
    ((_, image, drawn, options),) = recorder.calls
    assert image.shape == (300, 600, 3)
    assert (image[0, 0] > [150, -1, -1]).all()  # red comes first
    assert drawn.gt_instances.bboxes.tolist() == [[6, 12, 18, 24]]
    assert drawn.pred_instances.bboxes.tolist() == [[12, 18, 24, 30]]
    assert small.gt_instances.bboxes.tolist() == [[1, 2, 3, 4]]  # what is evaluated stays
    assert options['out_file'] == str(tmp_path / 'out/small.jpg.png')


def test_large_images_are_drawn_as_they_are(recorder, sample):
    large = sample('large.jpg', (600, 400))
    DetectionDrawingHook(draw=True, interval=1).after_test_iter(None, 0, None, [large])
    ((_, image, drawn, options),) = recorder.calls
    assert image.shape == (400, 600, 3)
    assert drawn is large
    assert options['out_file'] is None


def test_nothing_is_drawn_unless_it_is_asked_for(recorder, sample):
    DetectionDrawingHook(interval=1).after_test_iter(None, 0, None, [sample('image.jpg')])
    assert recorder.calls == []
