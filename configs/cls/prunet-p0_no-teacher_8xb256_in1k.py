# The published recipe, less its teacher: runs without timm
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/imagenet_224_randaug.py',
    '../_base_/schedules/imagenet_rmsprop_450e.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='PRUNet', arch='prunet_p0', drop_path_rate=0.2),
    neck=dict(type='PRUNetTail', in_channels=704, channels=1984, dropout=0.2),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1984,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)

custom_hooks = [
    dict(type='FiniteLossHook'),
    dict(type='EMAHook', momentum=1e-4, update_buffers=True),
]
