_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
]

# For a network that configs/search/prunet_cifar10.py found:
# --cfg-options model.backbone.arch=WORK_DIR/subnet.json
model = dict(
    type='ImageClassifier',
    backbone=dict(type='PRUNet', arch='work_dirs/prunet_cifar10/subnet.json'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=80),
)
