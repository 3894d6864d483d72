# ImageNet-1k as it is augmented in the published recipe
_base_ = ['./imagenet_224.py']

# Colours are in OpenCV's order here: the mean of all images, and noise around it where an image is
# erased. How NVIDIA filled such areas is not known to us.
augmentations = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        num_policies=2,
        magnitude_level=9,
        magnitude_std=0.5,
        total_level=10,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
        # timm's rand-m9-mstd0.5; mmpretrain's 'timm_increasing' is its rand-m9-mstd0.5-inc1
        policies=[
            dict(type='AutoContrast'),
            dict(type='Equalize'),
            dict(type='Invert'),
            dict(type='Rotate', magnitude_range=(0, 30)),
            # timm keeps floor(0.4 * level) bits, and mmpretrain rounds up
            dict(type='Posterize', magnitude_range=(-1, 3)),
            dict(type='Solarize', magnitude_range=(0, 256)),
            dict(type='SolarizeAdd', magnitude_range=(0, 110)),
            dict(type='ColorTransform', magnitude_range=(-0.9, 0.9), random_negative_prob=0),
            dict(type='Contrast', magnitude_range=(-0.9, 0.9), random_negative_prob=0),
            dict(type='Brightness', magnitude_range=(-0.9, 0.9), random_negative_prob=0),
            dict(type='Sharpness', magnitude_range=(-0.9, 0.9), random_negative_prob=0),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
            dict(type='Translate', magnitude_range=(0, 0.45), direction='horizontal'),
            dict(type='Translate', magnitude_range=(0, 0.45), direction='vertical'),
        ],
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.2,
        max_area_ratio=1 / 3,
        mode='rand',
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type='PackInputs'),
]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    *augmentations,
]
# the crop is 0.875 of the short edge
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
