_base_ = ['../_base_/search.py', '../_base_/datasets/imagenet_224.py']

# Contains the released PRUNETs, GPUNet-P0 and GPUNet-P1. Their published stage widths, 32, 32, 64,
# 96, 256 and 704, are the stages' inputs; `width` is a stage's output.
space = dict(
    name='v100',
    resolution=224,
    stem=dict(out_channels=32, kernel=3, stride=2, act='relu'),
    stages=[
        dict(width=32, stride=1, depth=2, ops=['conv'], kernels=[3, 5]),
        dict(width=64, stride=2, depth=3, ops=['irb'], first_ops=['conv'], kernels=[3, 5]),
        dict(width=96, stride=2, depth=3, ops=['irb'], kernels=[3, 5]),
        dict(width=256, stride=2, depth=3, ops=['irb'], kernels=[3, 5]),
        dict(width=704, stride=2, depth=4, ops=['irb'], kernels=[3, 5]),
        dict(width=704, stride=2, depth=1, ops=['irb'], kernels=[3, 5]),
    ],
    tail=dict(channels=1984, act='relu', dropout=0.2, num_classes=1000),
)

model = dict(
    type='ArchitectureSearch',
    architecture=dict(
        type='ImageClassifier',
        backbone=dict(type='SuperNet', space=space),
        neck=dict(type='PRUNetTail', in_channels=704, channels=1984, dropout=0.2),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=1984),
    ),
    latency=dict(
        table='v100_trt_fp16_b1',  # comes with the package: estimated, see docs/latency.md
        device='cuda',
        batch=1,
        threads=1,
        budget_ms=0.66,  # what the table gives GPUNet-P0, whose published latency is 0.63 ms
    ),
)

# 8 GPUs x 64 images, about 60 epochs of the weights' part
train_cfg = dict(max_iters=120000, warmup_iters=20000, architecture_interval=4)

default_hooks = dict(checkpoint=dict(interval=1000))
