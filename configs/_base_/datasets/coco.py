# COCO 2017, images of up to 1333 x 800 px
_base_ = ['mmdet::_base_/datasets/coco_detection.py']

data_layout = (
    'data/coco/annotations/instances_{train,val}2017.json and data/coco/{train,val}2017/IMAGE.jpg'
)

val_evaluator = dict(classwise=True)
test_evaluator = dict(classwise=True)
