_base_ = ['./retinanet_prunet_coco.py']

model = dict(
    backbone=dict(
        arch='gpunet_2',
        out_indices=(3, 5, 7),  # strides 8, 16 and 32
        init_cfg=dict(checkpoint='checkpoints/gpunet_2.pth'),
    ),
    neck=dict(in_channels=[112, 160, 832]),
)
