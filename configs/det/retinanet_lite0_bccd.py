# EfficientNet-Lite0 with ImageNet's weights in place of PRUNET-P0; the detector is the same.
# tools/model_converters/timm_to_prunet.py writes them, see docs/trained_weights.md
_base_ = ['./retinanet_prunet_bccd.py']

model = dict(
    # of the backbone's weights
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch='{{ fileDirname }}/../cls/tf_efficientnet_lite0.json',
        out_indices=(3, 5, 7),  # strides 8, 16 and 32
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/lite0/lite0.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[40, 112, 320]),
)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
