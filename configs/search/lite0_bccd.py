# On the detection loss: the backbone of the detector that configs/det/retinanet_lite0_bccd.py has
# trained shrinks to half of its latency
_base_ = [
    '../_base_/models/retinanet_bccd.py',
    '../_base_/datasets/bccd.py',
    '../_base_/search.py',
]

train_config = 'configs/det/retinanet_lite0_bccd.py'  # what fine-tunes the network that is found

arch = '{{ fileDirname }}/../cls/tf_efficientnet_lite0.json'
trained = 'work_dirs/retinanet_lite0_bccd/epoch_12.pth'
stages = [3, 5, 7]  # whose maps the neck takes
# for a square with about as many pixels as the images
space = dict(
    type='around', arch=arch, resolution=224, granularity=16, kernels=[], out_indices=stages
)

model = dict(
    _delete_=True,
    type='ArchitectureSearch',
    architecture=dict(
        _base_.model,
        data_preprocessor=dict(_base_.model.data_preprocessor, mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(
            type='SuperNet',
            space=space,
            out_indices=stages,
            init_cfg=dict(type='TrainedNetwork', arch=arch, checkpoint=trained),
        ),
        neck=dict(
            _base_.model.neck,
            in_channels=[40, 112, 320],
            init_cfg=dict(type='Pretrained', checkpoint=trained, prefix='neck.'),
        ),
        bbox_head=dict(
            _base_.model.bbox_head,
            init_cfg=dict(type='Pretrained', checkpoint=trained, prefix='bbox_head.'),
        ),
    ),
    latency=dict(
        table='work_dirs/tables/lite0_bccd_cpu.json',
        device='cpu',
        batch=4,
        threads=1,
        budget_ratio=0.5,
    ),
)

# No warm-up, since the weights are trained; the budget falls from the first step on.
train_cfg = dict(
    max_iters=300,
    warmup_iters=0,
    architecture_batch_size=8,
    paths=2,
    ramp=dict(begin=0.0, fall=0.6),
)

optim_wrapper = dict(
    weights=dict(
        optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
        clip_grad=dict(max_norm=10),
    ),
    architecture=dict(optimizer=dict(lr=0.012)),
)

default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer', name='visualizer')

# two processes side by side are faster than one on two threads
torch_threads = 1
