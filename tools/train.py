"""Trains a network on a config: ``python tools/train.py configs/cls/prunet_digits.py``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine import cli
    from prunet_mm.errors import ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    """The command line, with the arguments of mmpretrain's ``tools/train.py``."""
    parser = cli.config_parser('Train a network.')
    cli.add_training_arguments(parser)
    parser.add_argument('--no-validate', action='store_true', help='no evaluation in between')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='load into ordinary memory')
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='start loader workers every epoch'
    )
    return parser.parse_args()


def main() -> None:
    """Builds mmengine's runner from config and command line, and trains."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options, args.work_dir)
    cli.require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    own_start = cfg.get('load_from')
    cli.apply_run_arguments(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ConfigError(f'{args.config}: --auto-scale-lr needs auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'EMAHook':
            # It refuses a new head too, in a traceback; what has to fit is checked before.
            hook.setdefault('strict_load', False)
    cli.set_loader_defaults(cfg, not args.no_pin_memory, not args.no_persistent_workers)

    from prunet_mm.datasets.layout import require_data
    from prunet_mm.detection.check import require_channels_fit, require_weights
    from prunet_mm.detection.evaluation import use_exact_metric
    from prunet_mm.engine.buffers_hook import SameBuffersHook
    from prunet_mm.engine.checkpoint import use_safe_loading
    from prunet_mm.engine.patience_hook import PatienceHook
    from prunet_mm.engine.schedule_hook import ChangedScheduleHook
    from prunet_mm.engine.screen import screen
    from prunet_mm.engine.screen_runner import ScreenRunner
    from prunet_mm.engine.weights_hook import FittingWeightsHook

    use_safe_loading()
    require_data(cfg, 'train', 'val')
    use_exact_metric(cfg)
    with cli.resumable(cfg), screen(args.verbose):
        choose_start(cfg, own_start)
        runner = ScreenRunner.from_cfg(cfg)
        require_channels_fit(runner.model)
        require_weights(runner.model)
        runner.register_hook(FittingWeightsHook())
        runner.register_hook(ChangedScheduleHook())
        runner.register_hook(PatienceHook())
        runner.register_hook(SameBuffersHook())
        runner.train()


def choose_start(cfg: Config, otherwise: str | None) -> None:
    """Lets ``--resume`` find the latest checkpoint here, or begin as without it.

    Args:
        cfg: The config; changed in place.
        otherwise: The ``load_from`` from which a training begins that has no checkpoint yet.
    """
    from prunet_mm.engine.checkpoint import resume_point

    if cfg.get('resume') and not cfg.get('load_from'):
        found = resume_point(cfg.work_dir)
        cfg.resume, cfg.load_from = found is not None, str(found) if found else otherwise


if __name__ == '__main__':
    cli.run(main)
