"""Searches a network on a config: ``python tools/search.py configs/search/prunet_digits.py``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    from prunet_mm.engine import cli
    from prunet_mm.errors import ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = cli.config_parser('Search a network for one device and one latency budget.')
    cli.add_training_arguments(parser)
    parser.add_argument('--seed', type=int, help="of everything random; default: the config's")
    parser.add_argument(
        '--latency-target-ms', type=float, help="latency budget in ms; default: the config's"
    )
    parser.add_argument(
        '--latency-targets-ms',
        type=float,
        nargs='+',
        metavar='MS',
        help='several latency budgets in ms, rising: one search, a network for each',
    )
    parser.add_argument(
        '--derive-only',
        metavar='CHECKPOINT',
        help='search no further: derive the network from this checkpoint of a search',
    )
    parser.add_argument(
        '--rule',
        type=rule,
        metavar='taylor|lana|uniform|random|SEARCHED.pth',
        help='search nothing: cut the trained network that the search would start from by a rule, '
        'or as another search of this space has',
    )
    return parser.parse_args()


def rule(text: str) -> str:
    """The name of a rule, or a checkpoint.

    Raises:
        ArgumentTypeError: It is neither.
    """
    if text not in ('taylor', 'lana', 'uniform', 'random') and not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f'{text}: expected taylor, lana, uniform, random, or the searched.pth of a search'
        )
    return text


def main() -> None:
    """Build mmengine's runner from config and command line, search, and report."""
    args = parse_args()
    options = dict(args.cfg_options or {})
    if args.seed is not None:
        options['randomness.seed'] = args.seed
    cfg = cli.load_config(args.config, options, args.work_dir, first='search')
    cli.require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    cli.apply_run_arguments(cfg, args)
    for part in ('val', 'test'):  # a search never sees the images that judge its network
        for key in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{part}_{key}'] = None
    asked = dict(budget_ms=args.latency_target_ms, targets_ms=args.latency_targets_ms)
    if all(value is not None for value in asked.values()):
        raise ConfigError('--latency-target-ms and --latency-targets-ms: give one of them.')
    if any(value is not None for value in asked.values()):
        cfg.model.latency.update(budget_ratio=None, **asked)

    from prunet_mm.datasets.layout import require_data
    from prunet_mm.detection.check import require_channels_fit, require_weights
    from prunet_mm.engine.checkpoint import use_safe_loading
    from prunet_mm.engine.patience_hook import PatienceHook
    from prunet_mm.engine.schedule_hook import ChangedScheduleHook
    from prunet_mm.engine.screen import screen
    from prunet_mm.search import SearchRunner
    from prunet_mm.search.history import FILE_NAME

    use_safe_loading()
    history = Path(cfg.work_dir, FILE_NAME)
    if history.exists() and not (cfg.resume or args.derive_only):
        raise ConfigError(
            f'{cfg.work_dir} already holds a search ({FILE_NAME}): add --resume to go on with it, '
            'or choose another --work-dir.'
        )
    require_data(cfg, 'train')
    with cli.resumable(cfg), screen(args.verbose):
        runner = SearchRunner.from_cfg(cfg)
        runner.register_hook(ChangedScheduleHook())
        runner.register_hook(PatienceHook())
        require_channels_fit(runner.model)
        require_weights(runner.model)
        if args.derive_only:
            runner.derive(args.derive_only)
        elif args.rule:
            runner.apply_rule(args.rule)
        else:
            runner.train()


if __name__ == '__main__':
    cli.run(main)
