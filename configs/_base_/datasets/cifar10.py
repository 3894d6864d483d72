# CIFAR-10 as JPEG files, one folder per class
data_layout = 'data/cifar10/train/CLASS/IMAGE.jpg and data/cifar10/test/CLASS/IMAGE.jpg'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
# to the size that these images have already, so that networks can be tried on photographs
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]

# mean and standard deviation of the training images
data_preprocessor = dict(
    mean=[125.27, 122.93, 113.86], std=[62.53, 61.91, 66.46], to_rgb=True, num_classes=10
)

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='CustomDataset',
        data_root='data/cifar10',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    dataset=dict(
        type='CustomDataset', data_root='data/cifar10', data_prefix='test', pipeline=test_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
