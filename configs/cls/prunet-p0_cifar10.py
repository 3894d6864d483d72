# PRUNET-P0 on images of 32 px. Iterations are what it counts, so that it can be tried on a CPU:
# --auto-scale-lr --cfg-options train_dataloader.batch_size=32 train_cfg.max_iters=400
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='PRUNet',
        # the stem keeps the resolution: at stride 2 the last stage would have less than a pixel
        arch=dict(
            base='prunet_p0',
            name='prunet_p0_cifar10',
            resolution=32,
            stem=[
                dict(
                    op='conv',
                    in_channels=3,
                    out_channels=32,
                    kernel=3,
                    stride=1,
                    act='relu',
                    stage=0,
                )
            ],
            tail=dict(channels=1984, dropout=0.2, num_classes=10),
        ),
    ),
    neck=dict(type='PRUNetTail', in_channels=704, channels=1984, dropout=0.2),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1984),
)

train_dataloader = dict(sampler=dict(type='InfiniteSampler'))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False),
]
# 30 epochs of 782 iterations
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=23460, val_interval=782)

default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=782),
)
log_processor = dict(by_epoch=False)
