# A small RetinaNet for scenes of digits of 128 px, but for its backbone
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']

norm_cfg = dict(type='BN')
model = dict(
    # mean and standard deviation of the training images
    data_preprocessor=dict(mean=[127.6, 127.0, 127.6], std=[56.2, 56.4, 56.0]),
    neck=dict(
        in_channels=[48, 96, 160], out_channels=64, start_level=0, num_outs=3, norm_cfg=norm_cfg
    ),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        # digits have 9 to 60 px, and are higher than wide
        anchor_generator=dict(octave_base_scale=1.5, ratios=[1.0, 1.7, 2.6], strides=[8, 16, 32]),
    ),
    test_cfg=dict(nms_pre=300, max_per_img=50),
)
