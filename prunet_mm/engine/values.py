"""Settings of a config that cannot be, found before anything is built with them.

What they are passed to would fail deep inside, in a traceback, or compute something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunet_mm.errors import ConfigError

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class Allowed:
    """From ``low`` to ``high``, both included; whole numbers alone, or any."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = True

    def __contains__(self, value: Any) -> bool:
        kinds = (int,) if self.whole else (int, float)
        return type(value) in kinds and self.low <= value <= self.high and value != math.inf

    def __str__(self) -> str:
        number = 'a whole number' if self.whole else 'a finite number'
        low = f' of at least {self.low:g}' if self.low > -math.inf else ''
        return f'{number}{low}' + (f' and at most {self.high}' if self.high < math.inf else '')


@dataclass(frozen=True)
class Of:
    """What is of a type."""

    kind: type | tuple[type, ...]
    words: str

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, self.kind)

    def __str__(self) -> str:
        return self.words


SECTION, LIST, TEXT = Of(Mapping, 'a dict'), Of((list, tuple), 'a list'), Of(str, 'a text')
SEED, COUNT, SOME = Allowed(0, 2**32 - 1), Allowed(0), Allowed(1)
RATE, FINITE = Allowed(0, whole=False), Allowed(whole=False)

# By dotted name, where * stands for any one key. None is for what has a default.
SETTINGS = {
    **dict.fromkeys(('model', 'model.latency', 'data_preprocessor', 'visualizer'), SECTION),
    **dict.fromkeys(('*_dataloader', '*_dataloader.dataset', '*_dataloader.sampler'), SECTION),
    **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'randomness'), SECTION),
    **dict.fromkeys(('default_hooks', 'env_cfg', 'log_processor', 'custom_imports'), SECTION),
    'env_cfg.dist_cfg': SECTION,
    'env_cfg.dist_cfg.timeout': Allowed(1, whole=False),
    **dict.fromkeys(('optim_wrapper', 'optim_wrapper.optimizer'), SECTION),
    **{f'optim_wrapper.{part}': SECTION for part in ('weights', 'architecture')},
    **{f'optim_wrapper.{part}.optimizer': SECTION for part in ('weights', 'architecture')},
    **dict.fromkeys(('work_dir', 'load_from', 'default_scope', 'train_config'), TEXT),
    **dict.fromkeys(('model.latency.table', 'model.latency.device'), TEXT),
    **dict.fromkeys(('*_dataloader.dataset.data_root', '*_dataloader.dataset.ann_file'), TEXT),
    '*_dataloader.dataset.data_prefix': Of((str, Mapping), 'a text or a dict of texts'),
    '*_dataloader.dataset.metainfo': SECTION,
    'custom_hooks': LIST,
    'randomness.seed': SEED,
    'torch_threads': SOME,
    '*_dataloader.batch_size': SOME,
    '*_dataloader.num_workers': COUNT,
    'train_cfg.max_epochs': SOME,
    'train_cfg.max_iters': SOME,
    'train_cfg.val_interval': SOME,
    'train_cfg.warmup_iters': COUNT,
    'train_cfg.architecture_batch_size': SOME,
    'train_cfg.architecture_fraction': RATE,
    'train_cfg.architecture_interval': SOME,
    'auto_scale_lr.base_batch_size': SOME,
    'default_hooks.checkpoint.interval': Allowed(-1),
    'default_hooks.checkpoint.max_keep_ckpts': Allowed(-1),
    'env_cfg.mp_cfg.mp_start_method': ('fork', 'spawn', 'forkserver'),
    'default_hooks.logger.interval': SOME,
    **{
        f'optim_wrapper{part}.{name}': allowed
        for part in ('', '.weights', '.architecture')
        for name, allowed in {
            'accumulative_counts': SOME,
            'optimizer.lr': RATE,
            'optimizer.weight_decay': RATE,
        }.items()
    },
    'optim_wrapper.architecture.paramwise_cfg.*': RATE,
    'model.latency.budget_ms': FINITE,
    'model.latency.budget_ratio': FINITE,
}


def check_values(cfg: Config, name: str) -> None:
    """Refuses settings of the wrong kind, and numbers outside of what they can be.

    Args:
        cfg: The config.
        name: What errors call it.

    Raises:
        ConfigError: Names the first setting, what was found and what is expected.
    """
    for key, loader in _found(cfg, ['*_dataloader']):
        if isinstance(loader, Mapping) and loader.get('dataset') is None:
            raise ConfigError(f'{name}: {key} has no dataset')
    for pattern, allowed in SETTINGS.items():
        for key, value in _found(cfg, pattern.split('.')):
            if value is not None and value not in allowed:
                raise ConfigError(f'{name}: {key} is {value!r}: expected {allowed}')


def _found(config: Any, pattern: list[str], path: str = '') -> Iterator[tuple[str, Any]]:
    """Yields name and value of every setting that a pattern matches."""
    if not pattern:
        yield path, config
    elif hasattr(config, 'keys'):  # mmengine's Config is no Mapping
        head, *rest = pattern
        start, star, end = head.partition('*')
        for key in list(config):
            if key == head or (star and key.startswith(start) and key.endswith(end)):
                yield from _found(config[key], rest, f'{path}.{key}'.lstrip('.'))
