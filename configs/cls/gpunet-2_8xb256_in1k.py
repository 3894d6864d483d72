# The recipe of PRUNET-P0 without its teacher; what else NVIDIA did for this network is not known
# to us.
_base_ = ['./prunet-p0_no-teacher_8xb256_in1k.py']

model = dict(
    backbone=dict(arch='gpunet_2'),
    neck=dict(in_channels=832, channels=1280),
    head=dict(in_channels=1280),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=384, backend='pillow', interpolation='bicubic'),
    *_base_.augmentations,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=438, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    dict(type='PackInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
