# A small PRUNet in RetinaNet on scenes of digits, from scratch: minutes on one thread of a CPU
_base_ = [
    '../_base_/models/retinanet_digits.py',
    '../_base_/datasets/digits_coco.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='PRUNet',
        arch='{{ fileDirname }}/prunet_digits.json',
        out_indices=(2, 3, 4),  # strides 8, 16 and 32
    ),
)

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False),
]
train_cfg = dict(by_epoch=False, max_iters=2500, val_interval=500)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)

# two trainings side by side are faster than one on two threads
torch_threads = 1
