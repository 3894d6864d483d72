# What every search shares: two optimisers, and one hook per tier of pruning
_base_ = ['./default_runtime.py']

train_cfg = dict(type='SearchLoop')

optim_wrapper = dict(
    constructor='SearchOptimWrapperConstructor',
    weights=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)),
    architecture=dict(
        optimizer=dict(type='Adam', lr=0.01, betas=(0.5, 0.95)),
        paramwise_cfg=dict(logits=3.0, keep=2.0),
    ),
)
param_scheduler = dict(
    weights=[dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.01)],
    architecture=[dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.3)],
)

default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
custom_hooks = [
    dict(type='SearchStateHook'),
    dict(type='TemperatureHook'),
    dict(type='RampHook'),
    dict(type='PrunodeHook'),
    dict(type='BlockPruningHook'),
    dict(type='LayerPruningHook'),
    dict(type='SettleHook'),
    dict(type='HistoryHook'),
    dict(type='TrainedStartHook'),
    dict(type='DeriveHook'),
]
