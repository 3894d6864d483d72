_base_ = ['./retinanet_prunet_coco.py']

model = dict(
    backbone=dict(
        arch='prunet_p1',
        init_cfg=dict(checkpoint='checkpoints/prunet_p1.pth'),
    ),
)
