from itertools import product

import pytest
from mmdet.datasets import CocoDataset
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from prunet_mm.datasets.box_check import check_boxes
from prunet_mm.datasets.report import Report

CATEGORIES = [dict(id=7, name='cat'), dict(id=4, name='dog'), dict(id=5, name='no class')]
CLASSES = ('cat', 'dog')
IMAGES = [dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in range(1, 13)]
PLAIN = dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 20, 10], area=200, iscrowd=0)

GRID = dict(
    bbox=[
        *([10, 10, 20, 10], [10, 10, 0, 10], [10, 10, 0.5, 10], [10, 10, 5, -5]),
        *([64, 10, 20, 10], [50, 10, 20, 10], [10, -30, 20, 10]),
    ],
    area=[200, 0, -1, 2e10],
    iscrowd=[0, 1],
    ignore=[None, 0, 1],
    image_id=[1, 99],
    category_id=[7, 5, 99],
)


def grid():
    for values in product(*GRID.values()):
        fields = dict(zip(GRID, values, strict=True))
        if fields['ignore'] is None:
            del fields['ignore']
        yield PLAIN | fields


def check(annotations, test_mode=False):
    report = Report('boxes.json', images=len(IMAGES))
    content = dict(images=IMAGES, categories=CATEGORIES, annotations=annotations)
    check_boxes(report, content, CLASSES, test_mode)
    return report


def learnt_from(annotation):
    """The number of boxes that mmdet's data set hands to a training."""
    dataset = CocoDataset.__new__(CocoDataset)
    dataset.data_prefix, dataset.return_classes = dict(img=''), False
    dataset.cat_ids, dataset.cat2label = [7, 4], {7: 0, 4: 1}
    images = [image for image in IMAGES if image['id'] == annotation['image_id']]
    parsed = [
        dataset.parse_data_info(
            dict(raw_img_info=dict(image, img_id=image['id']), raw_ann_info=[annotation])
        )
        for image in images
    ]
    return sum(not box['ignore_flag'] for data in parsed for box in data['instances'])


def to_be_found(annotation):
    """The number of boxes that pycocotools wants to be found, as mmdet calls it."""
    truth = COCO()
    truth.dataset = dict(images=IMAGES, categories=CATEGORIES, annotations=[dict(annotation)])
    truth.createIndex()
    found = truth.loadRes([dict(image_id=1, category_id=4, bbox=[1, 1, 5, 5], score=0.5)])
    evaluation = COCOeval(truth, found, 'bbox')
    evaluation.params.imgIds = [image['id'] for image in IMAGES]
    evaluation.params.catIds = [7, 4]
    evaluation.evaluate()
    everything = evaluation.params.areaRng[0]
    images = [image for image in evaluation.evalImgs if image and image['aRng'] == everything]
    return sum(int((image['gtIgnore'] == 0).sum()) for image in images)


def test_what_is_counted_is_what_mmdet_learns_from():
    for annotation in grid():
        report = check([annotation])
        assert sum(report.counts.values()) == learnt_from(annotation), annotation
        told = [s for s in report.warnings if 'left out' in s and 'in training' in s]
        if told:
            assert learnt_from(annotation) == 0, (annotation, told)


def test_what_is_counted_is_what_evaluations_want_found(capsys):
    for annotation in grid():
        report = check([annotation], test_mode=True)
        wanted = to_be_found(annotation)
        assert sum(report.counts.values()) == wanted, annotation
        for sentence in report.warnings:
            says_yes = 'have to be found' in sentence or 'count as missed' in sentence
            says_no = 'neither' in sentence or 'could be evaluated' in sentence
            assert not (says_yes and wanted == 0), (annotation, sentence)
            assert not (says_no and wanted), (annotation, sentence)


@pytest.mark.parametrize(
    ('fields', 'in_training', 'in_evaluation'),
    [
        (dict(ignore=1), 'carry "ignore" and are left out in training', 'which evaluations do not'),
        (dict(area=0), 'have an area of 0 or less and are left', 'have an area of 0: they have to'),
        (dict(area=-3), 'have an area of 0 or less', 'have a negative area: they count neither'),
        (dict(bbox=[10, 10, 0, 10]), 'a side below a pixel and are left', 'cannot be found and'),
        (dict(bbox=[10, 10, 0.5, 10]), 'a side below a pixel', 'they have to be found, although'),
        (dict(bbox=[64, 10, 20, 10]), 'outside of their image and', 'outside of their image, so'),
        (dict(bbox=[50, 10, 20, 10]), 'reach beyond their image', 'reach beyond their image'),
        (dict(image_id=99), 'belong to no image and', 'belong to no image and are left out'),
        (dict(category_id=99), 'belong to no category', 'belong to no category and are left out'),
    ],
)
def test_what_is_odd_is_said_with_count_and_example(fields, in_training, in_evaluation):
    others = [
        PLAIN | dict(id=2, bbox=[30, 20, 34, 28]),
        PLAIN | dict(id=3, category_id=4),
        PLAIN | dict(id=4, bbox=[-1, 20, 66, 29]),  # a pixel beyond is fine
    ]
    for test_mode, words in ((False, in_training), (True, in_evaluation)):
        report = check([PLAIN | fields, *others], test_mode)
        (sentence,) = report.warnings
        assert (report.errors, words in sentence) == ([], True), sentence
        assert sentence.startswith('boxes.json: 1 of 4 boxes ')
        assert sentence.endswith(': the first is annotation 1')


def spread(reading=lambda *box: box, count=36, **fields):
    """Boxes all over the images, written as the reading says."""
    boxes = [(x, y, 14, 11) for x in (2, 25, 48) for y in (1, 18, 35)]
    return [
        PLAIN
        | dict(id=i + 1, image_id=1 + i // 9, bbox=list(reading(*boxes[i % 9])), area=154)
        | fields
        for i in range(count)
    ]


LAYOUTS = {
    '[left, top, right, bottom]': lambda x, y, w, h: (x, y, x + w, y + h),
    '[centre x, centre y, width, height]': lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
    '[top, left, height, width]': lambda x, y, w, h: (y, x, h, w),
}


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_boxes_in_another_layout_are_an_error_that_names_it(layout, test_mode):
    assert check(spread(), test_mode).errors == []
    (sentence,) = check(spread(LAYOUTS[layout]), test_mode).errors
    assert f'fit as {layout}: write them as [left, top, width, height]' in sentence


def test_corners_near_the_origin_are_told_by_their_areas():
    annotations = [
        PLAIN | dict(id=i, bbox=[i, i, i + 9, i + 8], area=72, image_id=i) for i in range(1, 13)
    ]
    assert 'as [left, top, right, bottom]' in check(annotations).errors[0]
    for annotation in annotations:  # large things near the corner, if the areas say so
        annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    assert check(annotations).errors == []


def test_boxes_for_images_of_another_size():
    (sentence,) = check(spread(lambda *box: [2 * side for side in box])).errors
    assert '32 of 36 boxes reach beyond' in sentence
    assert 'most likely they were made for images of another size' in sentence
    small = check(spread(lambda *box: [side / 2 for side in box]))
    assert small.errors == []
    assert 'no box reaches beyond 48% of the width and 48% of the height' in small.warnings[0]
    shares = check(spread(lambda x, y, w, h: (x / 64, y / 48, w / 64, h / 48)))
    assert 'all numbers of its 36 boxes are between 0 and 1' in shares.errors[0]


def test_boxes_of_no_image_or_category_at_all_are_an_error_with_the_clue():
    (sentence, *_) = check(spread(image_id='1'), test_mode=True).errors
    assert sentence.endswith("36 of 36 boxes belong to no image and are left out: the first is "
                             "annotation 1, of image '1'")  # fmt: skip
    (sentence, *_) = check(spread(category_id=0), test_mode=True).errors
    assert sentence.endswith('the first is annotation 1, of category 0')


def test_a_box_that_is_there_twice():
    (sentence,) = check([*spread(), PLAIN | dict(id=99, bbox=[2, 1, 14, 11])]).warnings[:1]
    assert '1 of 37 boxes are there already' in sentence
    assert sentence.endswith('annotation 99')
