# The backbone is mmdet's, and so is all that it is trained with
_base_ = ['./retinanet_prunet_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        out_indices=(1, 2, 3),  # strides 8, 16 and 32
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(in_channels=[512, 1024, 2048]),
)
