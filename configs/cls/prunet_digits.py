_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
]

model = dict(
    type='ImageClassifier',
    # one network of the space in configs/search/prunet_digits.py; for the one that a search found:
    # --cfg-options model.backbone.arch=WORK_DIR/subnet.json
    backbone=dict(type='PRUNet', arch='{{ fileDirname }}/prunet_digits.json'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=48),
)

default_hooks = dict(checkpoint=dict(interval=5))
