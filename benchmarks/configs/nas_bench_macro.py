# A search in NAS-Bench-Macro: benchmarks/nas_bench_macro.py fills in the space, files and budgets
_base_ = ['../../configs/_base_/search.py', '../../configs/_base_/datasets/cifar10.py']

model = dict(
    type='ArchitectureSearch',
    architecture=dict(
        type='ImageClassifier',
        backbone=dict(type='SuperNet'),
        neck=dict(type='PRUNetTail', in_channels=256, channels=1280),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=1280),
    ),
    latency=dict(device='cpu', batch=64, threads=1),
)
train_dataloader = dict(batch_size=32)
train_cfg = dict(architecture_batch_size=64, paths=6, small_images=2 / 3)
optim_wrapper = dict(
    weights=dict(optimizer=dict(lr=0.06, nesterov=True), clip_grad=dict(max_norm=5))
)
torch_threads = 1
