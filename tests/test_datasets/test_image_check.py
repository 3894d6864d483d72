import numpy as np
import pytest
from PIL import Image

from prunet_mm.datasets import image_check
from prunet_mm.datasets.image_check import EVERYTHING, HEADERS, NOTHING, Depth, check_images
from prunet_mm.datasets.report import Report

SIZE = (64, 48)


@pytest.fixture
def save(tmp_path):
    """Write an image of noise, maybe with a note of its orientation; returns its path."""

    def save(name, size=SIZE, orientation=None):
        pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        return str(tmp_path / name)

    return save


def check(*paths, size=SIZE, depth=HEADERS, **loader):
    report = Report('boxes.json', files=list(paths))
    pipeline = [dict(type='mmdet.LoadImageFromFile', **loader)]
    check_images(report, size and [size] * len(paths), pipeline, depth)
    return report


def only(report):
    assert report.warnings == []
    (sentence,) = report.errors
    return sentence


def test_images_that_are_right(save):
    report = check(*(save(f'image.{suffix}') for suffix in ('jpg', 'png', 'bmp', 'webp', 'tif')))
    assert (report.errors, report.warnings) == ([], [])


def test_the_size_is_the_one_that_the_loader_sees(save):
    turned = save('turned.jpg', orientation=6)
    sentence = only(check(save('plain.jpg'), turned))
    assert sentence.startswith(f'{turned}: is read as 48 x 64 pixels, but has 64 x 48 by its anno')
    assert 'it is turned as it is read, by orientation 6 in its EXIF data' in sentence
    assert sentence.endswith('(1 of 2 images)')
    assert check(turned, size=(48, 64)).errors == []  # boxes drawn on what one sees
    assert check(turned, color_type='color_ignore_orientation').errors == []
    assert 'which the pipeline' in only(
        check(turned, size=(48, 64), color_type='color_ignore_orientation')
    )


@pytest.mark.parametrize('suffix', ['png', 'tif', 'webp'])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_readers_differ_in_whether_they_turn_other_formats(save, suffix, backend):
    from mmcv.transforms import LoadImageFromFile

    path = save(f'turned.{suffix}', orientation=8)
    read = LoadImageFromFile(imdecode_backend=backend)(dict(img_path=path))
    width, height = read['ori_shape'][::-1]
    assert check(path, size=(width, height), imdecode_backend=backend).errors == []
    assert len(check(path, size=(height, width), imdecode_backend=backend).errors) == 1


def test_swapped_sides_without_such_a_note_and_other_sizes(save):
    assert 'have width and height swapped' in only(check(save('a.jpg'), size=(48, 64)))
    sentence = only(check(save('a.jpg'), size=(640, 480)))
    assert 'is read as 64 x 48 pixels, but has 640 x 480 by its' in sentence


@pytest.mark.parametrize(('size', 'orientation'), [((64, 48), 3), ((48, 48), 6)])
def test_what_a_turn_does_to_boxes_cannot_always_be_told(save, size, orientation):
    report = check(save('a.jpg', size, orientation), size=size)
    assert report.errors == []
    assert f'by orientation {orientation} in its EXIF data: look whether' in report.warnings[0]
    assert check(save('a.jpg', size, orientation), size=None).warnings == []  # a class has no side


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tif'])
@pytest.mark.parametrize('share', [0.5, 0.97])
def test_half_a_file_is_found_without_decoding_all(save, suffix, share):
    path = save(f'half.{suffix}')
    with open(path, 'rb') as file:
        content = file.read()
    with open(path, 'wb') as file:
        file.write(content[: int(share * len(content))])
    assert f'{path}: is no' in only(check(path, depth=Depth(10, 0)))


def test_what_comes_after_the_end_of_an_image_does_not_matter(save):
    path = save('padded.jpg')
    with open(path, 'ab') as file:
        file.write(b'\0' * 100)
    assert check(path).errors == []


def test_files_of_zero_bytes_and_of_something_else(save, tmp_path):
    (tmp_path / 'zero.jpg').touch()
    (tmp_path / 'text.jpg').write_text('no image')
    errors = check(str(tmp_path / 'zero.jpg'), str(tmp_path / 'text.jpg'), save('a.jpg')).errors
    assert errors[0] == f'{tmp_path}/zero.jpg: is a file of zero bytes (1 of 3 images)'
    assert errors[1].startswith(f'{tmp_path}/text.jpg: is not an image that can be read')


def test_a_format_that_only_another_reader_knows(save):
    path = save('image.tga')
    sentence = only(check(path))
    assert f'{path}: is not an image that can be read: the TGA file' in sentence
    assert "imdecode_backend='cv2'" in sentence
    assert check(path, imdecode_backend='pillow').errors == []


def test_large_images_are_no_attack_unless_the_loader_says_so(save, monkeypatch):
    path = save('large.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    monkeypatch.setitem(image_check.LIMITS, 'pillow', 2000)
    assert check(path).errors == []
    assert 'is not an image that can be read' in only(check(path, imdecode_backend='pillow'))
    assert Image.MAX_IMAGE_PIXELS == 1000


def damage_inside(path):
    with open(path, 'r+b') as file:
        file.seek(100)
        file.write(b'\xff' * 2000)


def test_damage_inside_takes_decoding(save):
    path = save('damaged.png')
    damage_inside(path)
    paths = [path, save('a.png'), save('b.png')]
    assert check(*paths, depth=Depth(3, 0)).errors == []
    assert f'{path}: is no whole image' in only(check(*paths, depth=EVERYTHING))


def test_a_sample_is_spread_evenly(save):
    paths = [save(f'{i}.png', size=(i + 1, 5)) for i in range(9)]
    assert check(*paths, size=(1, 5), depth=NOTHING).errors == []
    sentence = only(check(*paths, size=(1, 5), depth=Depth(3, 0)))
    assert sentence.startswith(paths[3]) and sentence.endswith('(2 of 3 images)')
