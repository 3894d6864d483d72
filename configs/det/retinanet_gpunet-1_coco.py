_base_ = ['./retinanet_prunet_coco.py']

model = dict(
    backbone=dict(
        arch='gpunet_1',
        out_indices=(3, 5, 6),  # strides 8, 16 and 32
        init_cfg=dict(checkpoint='checkpoints/gpunet_1.pth'),
    ),
    neck=dict(in_channels=[96, 288, 448]),
)
