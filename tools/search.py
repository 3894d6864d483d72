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
        '--derive-only',
        metavar='CHECKPOINT',
        help='search no further: derive the network from this checkpoint of a search',
    )
    return parser.parse_args()


def main() -> None:
    """Build mmengine's runner from config and command line, search, and report."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options, args.work_dir, first='search')
    cli.require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    cli.apply_run_arguments(cfg, args)
    for part in ('val', 'test'):  # a search never sees the images that judge its network
        for key in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{part}_{key}'] = None
    if args.seed is not None:
        cfg.randomness = dict(seed=args.seed)
    if args.latency_target_ms is not None:
        cfg.model.latency.budget_ms = args.latency_target_ms
        cfg.model.latency.budget_ratio = None

    from prunet_mm.datasets.layout import require_data
    from prunet_mm.detection.check import require_channels_fit, require_weights
    from prunet_mm.engine.checkpoint import use_safe_loading
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
        require_channels_fit(runner.model)
        require_weights(runner.model)
        if args.derive_only:
            runner.derive(args.derive_only)
        else:
            runner.train()


if __name__ == '__main__':
    cli.run(main)
