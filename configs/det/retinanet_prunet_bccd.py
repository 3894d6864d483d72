# PRUNET-P0 in a light RetinaNet on photographs of blood cells, from scratch, on a CPU
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/bccd.py',
    '../_base_/det_runtime.py',
]

norm_cfg = dict(type='BN')
model = dict(
    # mean and standard deviation of the training images
    data_preprocessor=dict(mean=[187.9, 177.4, 182.2], std=[15.5, 26.0, 19.3], pad_size_divisor=64),
    backbone=dict(
        _delete_=True,
        type='PRUNet',
        arch='prunet_p0',
        out_indices=(3, 4, 5, 6),  # strides 8, 16, 32 and 64
    ),
    neck=dict(
        in_channels=[96, 256, 704, 704],
        out_channels=96,
        start_level=0,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
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

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=4)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=4)

default_hooks = dict(checkpoint=dict(interval=4), logger=dict(interval=13))

# two trainings side by side are faster than one on two threads
torch_threads = 1
