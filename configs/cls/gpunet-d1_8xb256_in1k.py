# The recipe of PRUNET-P0 without its teacher. NVIDIA named this network after distillation, but
# neither its teacher nor the rest of its recipe is known to us.
_base_ = ['./prunet-p0_no-teacher_8xb256_in1k.py']

model = dict(
    backbone=dict(arch='gpunet_d1', drop_path_rate=0),
    neck=dict(
        in_channels=268,
        channels=1152,
        features=1984,
        norm_cfg=dict(type='BN', eps=1e-5, momentum=0.1),
    ),
    head=dict(in_channels=1984),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=456, backend='pillow', interpolation='bicubic'),
    *_base_.augmentations,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=521, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=456),
    dict(type='PackInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
