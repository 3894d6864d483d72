# A classifier of timm, as tools/model_converters/timm_to_prunet.py writes it:
# --cfg-options model.backbone.arch=DST.json
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/imagenet_224.py']

# The values below are those of the default network; what is listed here follows from any other one.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='PRUNet', arch='{{ fileDirname }}/tf_efficientnet_lite0.json'),
    neck=dict(
        type='PRUNetTail',
        in_channels=320,
        channels=1280,
        features=0,
        features_bias=False,
        act='relu6',
        dropout=0.0,
        norm_cfg=dict(type='BN', eps=1e-3),
    ),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=1280),
)
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

from_arch = {
    'model.neck.in_channels': 'to_tail',
    'model.neck.channels': 'tail.channels',
    'model.neck.features': 'tail.features',
    'model.neck.features_bias': 'tail.features_bias',
    'model.neck.act': 'tail.act',
    'model.neck.dropout': 'tail.dropout',
    'model.neck.norm_cfg.eps': 'norm_eps',
    'model.head.in_channels': 'to_linear',
    'model.head.num_classes': 'tail.num_classes',
    'data_preprocessor.num_classes': 'tail.num_classes',
    'data_preprocessor.mean': 'mean',
    'data_preprocessor.std': 'std',
    'train_dataloader.dataset.pipeline.1.scale': 'resolution',
    'train_dataloader.dataset.pipeline.1.interpolation': 'interpolation',
    'val_dataloader.dataset.pipeline.1': 'resize',
    'val_dataloader.dataset.pipeline.2.crop_size': 'resolution',
    'test_dataloader.dataset.pipeline.1': 'resize',
    'test_dataloader.dataset.pipeline.2.crop_size': 'resolution',
}

# fine-tuning; not tried on ImageNet here
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(type='CosineAnnealingLR', eta_min=1e-4, by_epoch=True)
