"""Tests a network: ``python tools/test.py configs/cls/prunet_digits.py CHECKPOINT``."""

from __future__ import annotations

import argparse
import copy
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from prunet_mm.engine import cli
    from prunet_mm.errors import ConfigError
except ImportError as error:  # versions that do not fit, or not installed at all
    sys.exit(f'error: {error}')

if TYPE_CHECKING:
    from mmengine.config import Config

# By scope, the hook that draws predictions, ours in its place with its package, and what they call
# being switched on and the folder to draw into.
DRAWING_HOOKS = {
    'mmpretrain': ('VisualizationHook', 'ClassificationDrawingHook', 'engine', 'enable', 'out_dir'),
    'mmdet': ('DetVisualizationHook', 'DetectionDrawingHook', 'detection', 'draw', 'test_out_dir'),
}
# By scope, what merges the predictions for several views of an image.
MERGING_MODELS = {
    'mmpretrain': dict(type='AverageClsScoreTTA'),
    'mmdet': dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
}


def parse_args() -> argparse.Namespace:
    """The command line, with the arguments of mmpretrain's and mmdet's ``tools/test.py``."""
    parser = cli.config_parser('Test a network.')
    parser.add_argument('checkpoint', help='its weights, as a training saved them')
    parser.add_argument('--out', metavar='FILE.json', help='also write results to this file')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out writes: the metrics, or the prediction for every image (the default)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision; needs a CUDA device'
    )
    parser.add_argument('--show-dir', metavar='FOLDER', help='draw predictions into this folder')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--interval', type=int, default=1, metavar='N', help='draw every Nth image only'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, metavar='SECONDS', help='how long a window stays'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_model and tta_pipeline; by default what is "
        'found in an image and in its mirror image is merged',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='load into ordinary memory')
    args = parser.parse_args()
    if args.out_item and not args.out:
        parser.error('--out-item says what to write, so it takes --out FILE.json as well')
    if args.interval < 1:
        parser.error('--interval has to be at least 1')
    return args


def main() -> None:
    """Builds mmengine's runner from config and command line, and tests."""
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options, args.work_dir)
    cli.require(cfg, 'model', 'test_dataloader', 'test_evaluator', 'test_cfg')
    if args.out:
        cli.require_output(args.out, '--out')
    if args.amp:
        cli.require_cuda('mixed precision (--amp)')
        cfg.test_cfg.fp16 = True
    cfg.load_from, cfg.resume = args.checkpoint, False
    cli.apply_process_arguments(cfg, args)
    cli.set_loader_defaults(cfg, pin_memory=not args.no_pin_memory)
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    if args.tta:
        augment(cfg)

    from mmengine.dist import is_main_process

    from prunet_mm.datasets.layout import require_data
    from prunet_mm.detection.evaluation import use_exact_metric
    from prunet_mm.engine.checkpoint import use_safe_loading
    from prunet_mm.engine.files import write_atomic
    from prunet_mm.engine.predictions import JsonPredictions, to_json
    from prunet_mm.engine.screen import screen
    from prunet_mm.engine.screen_runner import ScreenRunner
    from prunet_mm.engine.weights_hook import FittingWeightsHook

    use_safe_loading()
    require_data(cfg, 'test')
    use_exact_metric(cfg)
    with screen(args.verbose):
        runner = ScreenRunner.from_cfg(cfg)
        runner.register_hook(FittingWeightsHook(whole=True))
        if args.out and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(JsonPredictions(args.out))
        metrics = runner.test()
    if args.out and args.out_item == 'metrics' and is_main_process():
        write_atomic(args.out, to_json(metrics) + '\n')
    if args.show_dir and is_main_process():
        print(f'predictions are drawn in {args.show_dir}')


def draw_predictions(cfg: Config, args: argparse.Namespace) -> None:
    """Switches on the hook that draws, and adds it to a config that has none.

    Raises:
        ConfigError: The config's scope has none, or the folder cannot be made.
    """
    scope = cfg.get('default_scope')
    if scope not in DRAWING_HOOKS:
        known = ' and '.join(DRAWING_HOOKS)
        raise ConfigError(f'{cfg.filename}: predictions are drawn for {known}, not for {scope}')
    known, ours, package, switch, folder = DRAWING_HOOKS[scope]
    import_module(f'prunet_mm.{package}.drawing_hook')
    hook = cfg.default_hooks.get('visualization') or dict(type=known)
    if hook['type'] == known:
        hook = dict(hook, type=ours)
    options = dict(show=args.show, interval=args.interval, wait_time=args.wait_time)
    if args.show_dir:
        try:
            Path(args.show_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f'--show-dir {args.show_dir}: {error.strerror}') from error
        options[folder] = args.show_dir
    cfg.default_hooks.visualization = dict(hook, **options, **{switch: True})


def augment(cfg: Config) -> None:
    """Wraps the model in the config's ``tta_model`` and takes its ``tta_pipeline``."""
    if not {'tta_model', 'tta_pipeline'} <= cfg.keys():
        merging_model = MERGING_MODELS.get(cfg.get('default_scope'))
        if merging_model is None:
            raise ConfigError(f'{cfg.filename}: --tta takes tta_model and tta_pipeline, not set')
        *transforms, pack = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
        if 'meta_keys' in pack:
            pack['meta_keys'] = (*pack['meta_keys'], 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
        views = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.setdefault('tta_model', merging_model)
        cfg.setdefault('tta_pipeline', [*transforms, views])
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


if __name__ == '__main__':
    cli.run(main)
