# The published schedule, for 8 GPUs x 256 images; with --amp in mixed precision, as published
optim_wrapper = dict(
    optimizer=dict(type='RMSpropTF', lr=0.08, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=1e-5),
    # as timm does
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
)
# Both count from epoch 0, as in timm: the warm-up ends in epoch 3, which trains at 0.08 x 0.97
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 0.08, end=4),
    dict(type='StaircaseLR', step_size=2.4, gamma=0.97),
]
train_cfg = dict(by_epoch=True, max_epochs=450, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=2048)
