from pathlib import Path

import cv2
import numpy as np
import pytest

from prunet_mm.errors import DataError
from prunet_mm.inference.sources import Video, find_sources, read_image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'b').mkdir()
    for name in ('b/2.PNG', '1.png', '3.bmp', 'notes.txt'):
        (tmp_path / name).write_bytes(cv2.imencode('.png', np.zeros((4, 6, 3), np.uint8))[1])
    return tmp_path


def test_folders_are_searched_and_keep_the_paths_in_them(folder):
    sources = find_sources([str(folder), str(folder / 'b/2.PNG')])
    assert [str(s.name) for s in sources] == ['1.png', '3.bmp', 'b/2.PNG', '2.PNG']
    assert all(read_image(s.path).shape == (4, 6, 3) for s in sources)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('nowhere.png', 'nowhere.png: there is no such image'),
        ('notes.txt', 'notes.txt: takes images .*videos'),
        ('empty', 'empty: there is no image in this folder'),
    ],
)
def test_what_is_no_image_is_named(folder, name, words):
    (folder / 'empty').mkdir()
    with pytest.raises(DataError, match=words):
        find_sources([str(folder / name)])


@pytest.mark.parametrize('content', [b'', b'no image', b'\x89PNG\r\n\x1a\n'])
def test_a_file_that_holds_no_image_is_named(tmp_path, content):
    path = tmp_path / 'broken.png'
    path.write_bytes(content)
    with pytest.raises(DataError, match='broken.png: .* be read'):
        read_image(path)


def test_frames_of_a_video_in_their_order(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 48))
    for level in (10, 100, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    video = Video(path)
    levels = [read() for read in video]
    assert video.rate == 5
    assert [level.shape for level in levels] == [(48, 64, 3)] * 3
    assert [int(level.mean()) for level in levels] == pytest.approx([10, 100, 200], abs=3)
    with pytest.raises(DataError, match='is not a video that can be read'):
        Video(Path(__file__))
