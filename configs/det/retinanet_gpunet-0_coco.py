_base_ = ['./retinanet_prunet_coco.py']

model = dict(
    backbone=dict(
        arch='gpunet_0',
        out_indices=(3, 4, 6),  # strides 8, 16 and 32
        init_cfg=dict(checkpoint='checkpoints/gpunet_0.pth'),
    ),
    neck=dict(in_channels=[64, 256, 704]),
)
