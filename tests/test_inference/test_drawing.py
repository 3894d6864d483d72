import numpy as np
import pytest

from prunet_mm.inference import drawing
from prunet_mm.inference.drawing import draw
from prunet_mm.inference.reading import Findings


@pytest.fixture
def labels(monkeypatch):
    """Where labels were written, and the height of their text."""
    places, write = [], drawing._write

    def writing(canvas, place, words, text, colour):
        places.append((place, words, text))
        write(canvas, place, words, text, colour)

    monkeypatch.setattr(drawing, '_write', writing)
    return places


def found(*boxes):
    count = len(boxes)
    scores = np.linspace(0.9, 0.5, count)
    return Findings(scores, np.arange(count) % 2, np.array(boxes, 'f4').reshape(-1, 4))


@pytest.mark.parametrize(
    ('size', 'shape', 'text'),
    [
        ((64, 64), (512, 512), 14),
        ((48, 64), (384, 512), 14),
        ((3000, 4000), (3000, 4000), 88),
        ((1, 1), (512, 512), 14),
    ],
)
def test_labels_are_readable_on_images_of_any_size(labels, size, shape, text):
    image = np.full((*size, 3), 200, np.uint8)
    height, width = size
    box = width / 4, height / 4, width / 2, height / 2
    picture = draw(image, found(box), ['cat', 'dog'])
    assert picture.shape == (*shape, 3) and picture.dtype == np.uint8
    ((place, words, letters),) = labels
    assert (words, letters) == ('cat 0.90', text)
    assert 0 <= place[0] < place[2] <= shape[1] and 0 <= place[1] < place[3] <= shape[0]
    assert (image == 200).all()
    # the frame is where the box is, scaled with the image
    assert not (picture[shape[0] // 4 : shape[0] // 4 + 2, shape[1] // 3] == 200).all()


def test_labels_of_boxes_at_one_place_and_at_the_border_do_not_cover_each_other(labels):
    boxes = [(0, 0, 60, 60)] * 4 + [(500, 500, 512, 512), (480, 0, 512, 30)]
    draw(np.zeros((512, 512, 3), np.uint8), found(*boxes), ['cat', 'dog'])
    places = [place for place, _, _ in labels]
    assert len(places) == 6
    for index, place in enumerate(places):
        assert min(place) >= 0 and max(place) <= 512
        assert all(drawing._shared(place, other) == 0 for other in places[:index])


def test_the_classes_of_a_classifier_are_below_the_image():
    image = np.full((600, 600, 3), 7, np.uint8)
    picture = draw(image, Findings(np.array([0.8, 0.2]), np.array([1, 0])), ['cat', 'dog'])
    assert picture.shape[0] > 600 and picture.shape[1] == 600
    assert (picture[:600] == 7).all()
    below = picture[600:]
    assert (below == 255).all(-1).any() and (below < 50).all(-1).any()


def test_a_name_that_is_wider_than_the_picture_ends_in_dots(labels):
    draw(np.zeros((512, 512, 3), np.uint8), found((9, 99, 99, 199)), ['cat ' * 99, 'dog'])
    ((place, words, _),) = labels
    assert words.startswith('cat cat') and words.endswith('…')
    assert place[2] <= 512


def test_classes_have_colours_of_their_own():
    colours = np.array([drawing._colour(label) for label in range(20)], float)
    distances = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 25
