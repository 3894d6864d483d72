"""What is exported: the backbone or the classifier of a config, with its weights."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import MMLogger
from mmengine.model import Sequential
from mmpretrain.registry import MODELS
from torch import nn

from prunet_mm.engine.checkpoint import load_from_plain_data
from prunet_mm.engine.weights_hook import misfit
from prunet_mm.errors import CheckpointError, ConfigError
from prunet_mm.models import PRUNet
from prunet_mm.spec import NetworkSpec

if TYPE_CHECKING:
    from mmengine.config import Config

PARTS = {'backbone': ('backbone',), 'model': ('backbone', 'neck', 'head')}
PREPROCESSING = ('mean', 'std', 'to_rgb', 'bgr_to_rgb')


@dataclass(frozen=True)
class Network:
    """A module that maps images to one output or several.

    Attributes:
        module: Maps (N, C, H, W) to logits (N, classes), or to a tuple of the backbone's outputs.
        spec: The backbone as data.
        size: Height and width of the images in pixels.
        outputs: A name for each output: ``stage<number>``, or ``logits``.
        metadata: What the exported file says of itself, all strings.
    """

    module: nn.Module
    spec: NetworkSpec
    size: tuple[int, int]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def default_part(cfg: Config) -> str:
    """The whole model where the config has a classifier, the backbone where it has a detector."""
    return 'model' if cfg.model.get('head') else 'backbone'


def build_network(
    cfg: Config, part: str, checkpoint: str | None = None, size: Sequence[int] | None = None
) -> Network:
    """Builds what a config describes, in evaluation mode and on the CPU.

    Args:
        cfg: A config whose ``model`` has a `PRUNet` as its ``backbone``. Its ``init_cfg`` is not
            used, and neither are a detector's neck and heads nor a classifier's teacher built.
        part: A key of `PARTS`.
        checkpoint: A file or an address with the weights; None for random ones.
        size: Height and width of the images in pixels, or one number for both; None for the spec's
            resolution.

    Raises:
        ConfigError: There is no such part.
        SpecError: The images are too small.
        CheckpointError: The checkpoint cannot be read or is that of another network.
    """
    module = Sequential(_parts(cfg, part))
    backbone = module.backbone
    if not isinstance(backbone, PRUNet):
        raise ConfigError(
            f'{cfg.filename}: model.backbone is a {type(backbone).__name__}, but this tool exports '
            'PRUNet; to export what a search found, set model.backbone.arch to its subnet.json'
        )
    size = tuple(size or [backbone.spec.resolution])
    for pixels in size:
        at_size = backbone.spec.to_dict() | dict(resolution=pixels)
        NetworkSpec.from_dict(at_size, source=f'images of {pixels} pixels')
    if checkpoint:
        _load(module, checkpoint, part)
    else:
        _init(module)
    size = size * 2 if len(size) == 1 else size
    stages = tuple(f'stage{stage}' for stage in backbone.out_indices)
    return Network(
        module.eval(),
        backbone.spec,
        size,
        ('logits',) if part == 'model' else stages,
        dict(
            network=backbone.spec.name,
            part=part,
            input_size=json.dumps(size),
            weights=Path(checkpoint).name if checkpoint else 'random',
            preprocessing=json.dumps(_preprocessing(cfg)),
            spec=json.dumps(backbone.spec.to_dict(), separators=(',', ':')),
        ),
    )


def _parts(cfg: Config, part: str) -> OrderedDict[str, nn.Module]:
    if part == 'model' and not cfg.model.get('head'):
        raise ConfigError(
            f'{cfg.filename}: the model is no classifier (model.head is not set), so only its '
            'backbone can be exported: say --part backbone'
        )
    if not cfg.model.get('backbone'):
        raise ConfigError(
            f'{cfg.filename}: model.backbone is missing, so there is no network to export; where '
            'this is the config of a search, take one that trains the network it has found'
        )
    configs = {name: cfg.model.get(name) for name in PARTS[part]}
    return OrderedDict(
        (name, MODELS.build({k: v for k, v in config.items() if k != 'init_cfg'}))
        for name, config in configs.items()
        if config
    )


def _init(module: Sequential) -> None:
    # mmengine logs how each parameter was initialised.
    MMLogger.get_instance('export', logger_name='export', log_level='ERROR')
    module.init_weights()


def _load(module: Sequential, checkpoint: str, part: str) -> None:
    content = load_from_plain_data(checkpoint)
    saved = content.get('state_dict', content)
    if not isinstance(saved, Mapping):
        raise CheckpointError(f'{checkpoint}: its state_dict is a {type(saved).__name__}')
    weights = OrderedDict((key.removeprefix('module.'), saved[key]) for key in saved)
    if part == 'backbone' and not any(key.startswith('backbone.') for key in weights):
        weights = OrderedDict((f'backbone.{key}', weights[key]) for key in weights)
    weights._metadata = getattr(saved, '_metadata', None)  # layers read their version there
    try:
        why = misfit(module, weights, 'backbone.' if part == 'backbone' else '')
    except CheckpointError as error:  # the backbone has found it first
        raise CheckpointError(f'{checkpoint}: {error}') from error
    if why:
        raise CheckpointError(f'{checkpoint}: these weights do not fit the {part}: {why}')


def _preprocessing(cfg: Config) -> dict:
    """How images are normalised in front of the network, as the config says it."""
    settings = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    return {key: settings[key] for key in PREPROCESSING if key in settings}
