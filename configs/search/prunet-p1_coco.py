# NVIDIA's PRUNET-P1 in RetinaNet, on the detection loss of COCO, for a V100.
# It lacks what we do not have: COCO, the released weights and a detector trained from them, a V100
# with a table for the detector's images (the one here is estimated, for 224 px), and a run.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco.py',
    '../_base_/search.py',
]

train_config = 'configs/det/retinanet_prunet-p1_coco.py'

trained = 'work_dirs/retinanet_prunet-p1_coco/epoch_12.pth'
stages = [3, 4, 5, 6]  # whose maps the neck takes
space = dict(type='around', arch='prunet_p1', granularity=32, out_indices=stages)

model = dict(
    _delete_=True,
    type='ArchitectureSearch',
    architecture=dict(
        _base_.model,
        backbone=dict(
            type='SuperNet',
            space=space,
            out_indices=stages,
            init_cfg=dict(type='TrainedNetwork', arch='prunet_p1', checkpoint=trained),
        ),
        neck=dict(
            _base_.model.neck,
            in_channels=[96, 256, 704, 704],
            start_level=0,
            init_cfg=dict(type='Pretrained', checkpoint=trained, prefix='neck.'),
        ),
        bbox_head=dict(
            _base_.model.bbox_head,
            init_cfg=dict(type='Pretrained', checkpoint=trained, prefix='bbox_head.'),
        ),
    ),
    latency=dict(table='v100_trt_fp16_b1', device='cuda', batch=1, threads=1, budget_ratio=0.5),
)

# 8 GPUs x 2 images, about 3 epochs of the weights' part
train_cfg = dict(
    max_iters=18000, warmup_iters=0, architecture_interval=4, ramp=dict(begin=0.0, fall=0.6)
)
optim_wrapper = dict(weights=dict(optimizer=dict(lr=0.002)))

default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
