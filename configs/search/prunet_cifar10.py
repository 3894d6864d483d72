_base_ = ['../_base_/search.py', '../_base_/datasets/cifar10.py']

train_config = 'configs/cls/prunet_cifar10.py'  # what trains the network that is found

# A scale for two CPU cores: 32 px, halved by the stem, and a few narrow stages
space = dict(
    name='cifar10',
    resolution=32,
    stem=dict(out_channels=16, kernel=3, stride=2, act='relu'),
    stages=[
        dict(
            width=24,
            stride=1,
            depth=2,
            ops=['fused_irb', 'irb'],
            kernels=[3],
            max_expansion=4,
            granularity=8,
        ),
        dict(
            width=40,
            stride=2,
            depth=3,
            ops=['irb', 'fused_irb'],
            kernels=[3],
            max_expansion=4,
            granularity=8,
        ),
        dict(
            width=80,
            stride=2,
            depth=3,
            ops=['irb'],
            kernels=[3, 5],
            max_expansion=4,
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
        head=dict(type='LinearClsHead', num_classes=10, in_channels=80),
    ),
    latency=dict(
        table='work_dirs/tables/cifar10_cpu.json',
        device='cpu',
        batch=64,
        threads=1,
        budget_ratio=0.15,
    ),
)

train_cfg = dict(max_iters=1600, warmup_iters=400, architecture_batch_size=32)  # for every path

# so little work per layer that a second thread waits more than it computes
torch_threads = 1
