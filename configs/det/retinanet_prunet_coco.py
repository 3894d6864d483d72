# PRUNET-P0 in RetinaNet, 12 epochs on COCO, for 8 GPUs x 2 images. The backbone starts from weights
# for ImageNet, NVIDIA's for instance (README.md beside this file):
# python tools/model_converters/gpunet_to_prunet.py DOWNLOADED.pth.tar checkpoints/prunet_p0.pth
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/datasets/coco.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='PRUNet',
        arch='prunet_p0',
        out_indices=(3, 4, 5, 6),  # strides 8, 16, 32 and 64
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.', checkpoint='checkpoints/prunet_p0.pth'
        ),
    ),
    neck=dict(in_channels=[96, 256, 704, 704], start_level=0),
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
