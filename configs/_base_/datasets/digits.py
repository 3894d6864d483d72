# scikit-learn's digits, 8 x 8 pixels of one channel, in training shifted by up to one pixel
train_pipeline = [
    dict(type='RandomCrop', crop_size=8, padding=1),
    dict(type='PackInputs'),
]
# what the digits are already, so that networks can be tried on photographs
test_pipeline = [dict(type='Gray'), dict(type='Resize', scale=(8, 8)), dict(type='PackInputs')]

# mean and standard deviation of the training images
data_preprocessor = dict(mean=[77.89], std=[95.87], num_classes=10)

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type='Digits', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=360,
    num_workers=0,
    dataset=dict(type='Digits', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
