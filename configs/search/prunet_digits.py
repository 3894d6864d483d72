_base_ = ['../_base_/search.py', '../_base_/datasets/digits.py']

train_config = 'configs/cls/prunet_digits.py'  # what trains the network that is found

space = dict(
    name='digits',
    resolution=8,
    in_channels=1,
    stem=dict(out_channels=16, kernel=3, stride=1, act='relu'),
    stages=[
        dict(
            width=24,
            stride=2,
            depth=3,
            ops=['irb', 'fused_irb'],
            kernels=[3, 5],
            max_expansion=8,
            granularity=8,
        ),
        dict(
            width=48,
            stride=2,
            depth=3,
            ops=['irb', 'fused_irb'],
            kernels=[3],
            max_expansion=12,
            granularity=8,
        ),
    ],
    tail=dict(num_classes=10),
)

model = dict(
    type='ArchitectureSearch',
    architecture=dict(
        type='ImageClassifier',
        backbone=dict(type='SuperNet', space=space),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=48),
    ),
    latency=dict(
        table='work_dirs/tables/digits_cpu.json',
        device='cpu',
        batch=64,
        threads=1,
        budget_ratio=0.5,
    ),
)

train_cfg = dict(max_iters=500, warmup_iters=100, architecture_batch_size=128)

# so little work per layer that a second thread waits more than it computes
torch_threads = 1
