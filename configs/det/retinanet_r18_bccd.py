# mmdet's ResNet-18 in place of PRUNET-P0; all else is the same
_base_ = ['./retinanet_prunet_bccd.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        out_indices=(1, 2, 3),  # strides 8, 16 and 32
        norm_eval=False,
    ),
    neck=dict(in_channels=[128, 256, 512]),
)
