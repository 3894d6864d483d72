# A search on the detection loss: the SuperNet is the backbone of a RetinaNet on scenes of digits
_base_ = [
    '../_base_/models/retinanet_digits.py',
    '../_base_/datasets/digits_coco.py',
    '../_base_/search.py',
]

train_config = 'configs/det/retinanet_prunet_digits.py'  # what trains the network that is found

# around configs/det/prunet_digits.json: widths and strides of the stages are what the neck takes
space = dict(
    name='digits_det',
    resolution=128,
    stem=dict(out_channels=16, kernel=3, stride=2, act='relu'),
    stages=[
        dict(width=32, stride=2, depth=1, ops=['conv'], kernels=[3]),
        dict(
            width=48,
            stride=2,
            depth=3,
            ops=['irb', 'fused_irb'],
            kernels=[3],
            max_expansion=6,
            granularity=16,
        ),
        dict(
            width=96,
            stride=2,
            depth=3,
            ops=['irb', 'fused_irb'],
            kernels=[3],
            max_expansion=6,
            granularity=16,
        ),
        dict(
            width=160,
            stride=2,
            depth=3,
            ops=['irb'],
            kernels=[3, 5],
            max_expansion=6,
            granularity=32,
        ),
    ],
)

model = dict(
    _delete_=True,
    type='ArchitectureSearch',
    architecture=dict(
        _base_.model,
        backbone=dict(type='SuperNet', space=space, out_indices=(2, 3, 4)),  # strides 8, 16, 32
    ),
    latency=dict(
        table='work_dirs/tables/digits_det_cpu.json',
        device='cpu',
        batch=8,
        threads=1,
        budget_ratio=0.28,
    ),
)

train_cfg = dict(
    max_iters=1200, warmup_iters=300, architecture_batch_size=16, architecture_interval=2
)

optim_wrapper = dict(
    weights=dict(
        optimizer=dict(_delete_=True, type='AdamW', lr=4e-3, weight_decay=0.05),
        clip_grad=dict(max_norm=10),
    ),
)
param_scheduler = dict(
    weights=[
        dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=100),
        dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.01),
    ]
)

default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer', name='visualizer')

# two processes side by side are faster than one on two threads
torch_threads = 1
