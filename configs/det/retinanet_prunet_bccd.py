# PRUNET-P0 in a light RetinaNet on photographs of blood cells, from scratch, on a CPU
_base_ = [
    '../_base_/models/retinanet_bccd.py',
    '../_base_/datasets/bccd.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='PRUNet',
        arch='prunet_p0',
        out_indices=(3, 4, 5, 6),  # strides 8, 16, 32 and 64
    ),
    neck=dict(in_channels=[96, 256, 704, 704]),
)

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=4)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=4)

default_hooks = dict(checkpoint=dict(interval=4), logger=dict(interval=13))

# two trainings side by side are faster than one on two threads
torch_threads = 1
