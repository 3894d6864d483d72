# A light RetinaNet for photographs of blood cells, but for its backbone
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']

norm_cfg = dict(type='BN')
model = dict(
    # mean and standard deviation of the training images
    data_preprocessor=dict(mean=[187.9, 177.4, 182.2], std=[15.5, 26.0, 19.3], pad_size_divisor=64),
    neck=dict(out_channels=96, start_level=0, num_outs=4, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=3,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        # from platelets of 15 px to white blood cells of 75 px, at the median
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),
    ),
)
