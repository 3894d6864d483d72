# Lite0, as configs/cls/lite0_cifar10.py has trained it, shrinks to half of its latency
_base_ = ['../_base_/search.py', '../_base_/datasets/cifar10_64px.py']

work_dir = 'work_dirs/lite0_cifar10_search'  # not that of the training
train_config = 'configs/cls/lite0_cifar10.py'  # what fine-tunes the network that is found

arch = '{{ fileDirname }}/../cls/tf_efficientnet_lite0.json'
trained = 'work_dirs/lite0_cifar10/epoch_2.pth'
# Widths and skips. With other kernels, too, a layer's steps are divided between two blocks.
space = dict(type='around', arch=arch, resolution=64, num_classes=10, granularity=16, kernels=[])

model = dict(
    type='ArchitectureSearch',
    architecture=dict(
        type='ImageClassifier',
        backbone=dict(
            type='SuperNet',
            space=space,
            init_cfg=dict(type='TrainedNetwork', arch=arch, checkpoint=trained),
        ),
        neck=dict(
            type='PRUNetTail',
            in_channels=320,
            channels=1280,
            act='relu6',
            norm_cfg=dict(type='BN', eps=1e-3),
            init_cfg=dict(type='Pretrained', checkpoint=trained, prefix='neck.'),
        ),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=1280,
            init_cfg=dict(type='Pretrained', checkpoint=trained, prefix='head.'),
        ),
    ),
    latency=dict(
        table='work_dirs/tables/lite0_cifar10_cpu.json',
        device='cpu',
        batch=64,  # at 16 calls take so long that even the narrowest layers cost a third
        threads=1,
        budget_ratio=0.5,
    ),
)

# No warm-up, since the weights are trained; the budget falls from the first step on.
train_cfg = dict(max_iters=260, warmup_iters=0, paths=2, ramp=dict(begin=0.0, fall=0.6))
optim_wrapper = dict(
    # At 0.012 E[lat] stayed 9 % above a budget of 0.35, and lambda piled up; at 0.03 it follows.
    weights=dict(optimizer=dict(lr=0.01)),
    architecture=dict(optimizer=dict(lr=0.03)),
)

# so little work per layer that a second thread waits more than it computes
torch_threads = 1
