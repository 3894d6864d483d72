# EfficientNet-Lite0 from ImageNet's weights, fine-tuned on CIFAR-10; and what
# configs/search/lite0_cifar10.py has found around it, by the command that the search prints
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/cifar10_64px.py']

# written by tools/model_converters/timm_to_prunet.py, see docs/trained_weights.md
weights = 'work_dirs/lite0/lite0.pth'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='PRUNet',
        arch='{{ fileDirname }}/tf_efficientnet_lite0.json',
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.'),
    ),
    neck=dict(
        type='PRUNetTail',
        in_channels=320,
        channels=1280,
        act='relu6',
        norm_cfg=dict(type='BN', eps=1e-3),
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='neck.'),
    ),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1280),
)

train_dataloader = dict(batch_size=64)

train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=30),
    dict(type='CosineAnnealingLR', convert_to_iter_based=True),
]

# two trainings side by side are faster than one on two threads
torch_threads = 1
