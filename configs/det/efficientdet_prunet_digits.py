# Neck and head of EfficientDet; backbone, data and schedule are those of retinanet_prunet_digits.py
_base_ = ['./retinanet_prunet_digits.py']

model = dict(
    type='SingleStageDetector',
    neck=dict(
        _delete_=True,
        type='BiFPN',
        in_channels=[48, 96, 160],
        out_channels=64,
        num_outs=3,
        num_cells=2,
        norm_cfg=_base_.norm_cfg,
    ),
    bbox_head=dict(
        _delete_=True,
        type='EfficientDetHead',
        num_classes=10,
        in_channels=64,
        stacked_convs=2,
        norm_cfg=_base_.norm_cfg,
        anchor_generator=_base_.model.bbox_head.anchor_generator,
    ),
)
