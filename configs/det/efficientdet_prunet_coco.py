# Neck, head and recipe of EfficientDet-D0 (arXiv 1911.09070) around PRUNET-P0, for 8 GPUs x 16
# images. The backbone starts from weights for ImageNet, as in retinanet_prunet_coco.py.
_base_ = ['../_base_/datasets/coco.py', '../_base_/det_runtime.py']

image_size = (512, 512)
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=128,  # the coarsest stride
        batch_augments=[dict(type='BatchFixedSizePad', size=image_size)],
    ),
    backbone=dict(
        type='PRUNet',
        arch='prunet_p0',
        out_indices=(3, 4, 5, 6),  # strides 8, 16, 32 and 64
        norm_cfg=dict(type='BN', momentum=0.01),
        init_cfg=dict(
            type='Pretrained', prefix='backbone.', checkpoint='checkpoints/prunet_p0.pth'
        ),
    ),
    neck=dict(type='BiFPN', in_channels=[96, 256, 704, 704], out_channels=64, num_cells=3),
    bbox_head=dict(type='EfficientDetHead', num_classes=80, in_channels=64, stacked_convs=3),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=16, num_workers=8, batch_sampler=None, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.16, momentum=0.9, weight_decay=4e-5),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, flat_decay_mult=0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=300, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=2e-4, update_buffers=True),
]
sync_bn = 'torch'  # over all GPUs
