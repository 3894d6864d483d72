# A small PRUNet in RetinaNet on scenes of digits, from scratch: minutes on one thread of a CPU
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/digits_coco.py',
    '../_base_/det_runtime.py',
]

norm_cfg = dict(type='BN')
model = dict(
    # mean and standard deviation of the training images
    data_preprocessor=dict(mean=[127.6, 127.0, 127.6], std=[56.2, 56.4, 56.0]),
    backbone=dict(
        _delete_=True,
        type='PRUNet',
        arch='{{ fileDirname }}/prunet_digits.json',
        out_indices=(2, 3, 4),  # strides 8, 16 and 32
    ),
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

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False),
]
train_cfg = dict(by_epoch=False, max_iters=2500, val_interval=500)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)

# two trainings side by side are faster than one on two threads
torch_threads = 1
