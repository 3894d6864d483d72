# The backbone is mmdet's
_base_ = ['./retinanet_prunet_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='EfficientNet',
        arch='b0',
        out_indices=(3, 4, 5),  # strides 8, 16 and 32
        frozen_stages=2,  # stem and first stage, as in the others
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            prefix='backbone.',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/efficientnet/'
            'efficientnet-b0_3rdparty_8xb32_in1k_20220119-a7e2a0b1.pth',
        ),
    ),
    neck=dict(in_channels=[40, 112, 320]),
)
