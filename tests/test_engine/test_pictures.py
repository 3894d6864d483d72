import pytest

from prunet_mm.engine.pictures import common_folder, picture_name


class Images(list):
    def get_data_info(self, index):
        return self[index]


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['d/a/1.jpg', 'd/b/1.jpg', 'd/b/1.png'], ['a/1.jpg', 'b/1.jpg', 'b/1.png']),
        (['d/a/1.jpg', 'd/a/2.jpg'], ['1.jpg', '2.jpg']),
        (['d/1.jpg', 'd/1/1.jpg'], ['1.jpg', '1/1.jpg']),
        (['d/a/1.jpg', 'e/a/1.jpg'], ['d/a/1.jpg', 'e/a/1.jpg']),
    ],
)
def test_pictures_keep_what_tells_images_apart(paths, names):
    folder = common_folder(Images(dict(img_path=path) for path in paths))
    assert [picture_name(path, folder) for path in paths] == names


def test_images_without_files():
    assert common_folder(Images([dict(img=1)])) is None
    assert common_folder(Images()) is None
