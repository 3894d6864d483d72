"""What is exported: the backbone, the classifier or the detector of a config, with its weights."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import MMLogger
from mmengine.model import Sequential
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

from prunet_mm.engine.checkpoint import load_from_plain_data
from prunet_mm.engine.weights_hook import misfit
from prunet_mm.errors import CheckpointError, ConfigError
from prunet_mm.inference.metadata import Usage
from prunet_mm.inference.preparing import preparation_of
from prunet_mm.models import PRUNet
from prunet_mm.spec import NetworkSpec

if TYPE_CHECKING:
    from mmengine.config import Config
    from onnx import ModelProto

PARTS = {'backbone': ('backbone',), 'model': ('backbone', 'neck', 'head')}


@dataclass(frozen=True)
class Network:
    """A module that maps images to one output or several.

    Attributes:
        module: Maps (N, C, H, W) to logits (N, classes), or to a tuple of outputs.
        name: What it is called.
        shape: (C, H, W) of an image.
        outputs: A name for each output: ``stage<number>``, ``logits``, or those of a detector.
        metadata: What the exported file says of itself, all strings.
        spec: The backbone as data, if it is a `PRUNet`.
        usage: How to use the outputs; None for a backbone.
        detector: mmdet's, where the module is made of one.
        finish: What an ONNX model of the module goes through before it is a file.
    """

    module: nn.Module
    name: str
    shape: tuple[int, int, int]
    outputs: tuple[str, ...]
    metadata: dict[str, str]
    spec: NetworkSpec | None = None
    usage: Usage | None = None
    detector: nn.Module | None = None
    finish: Callable[[ModelProto], ModelProto] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.shape[1:]


def is_detector(cfg: Config) -> bool:
    """Whether a config's model is one of mmdet's."""
    return bool(cfg.model.get('bbox_head') or cfg.model.get('roi_head')) or (
        cfg.get('default_scope') == 'mmdet' and not cfg.model.get('head')
    )


def default_part(cfg: Config) -> str:
    """The whole model where the config has a head, else the backbone."""
    return 'model' if cfg.model.get('head') or is_detector(cfg) else 'backbone'


def build_network(
    cfg: Config, part: str, checkpoint: str | None = None, size: Sequence[int] | None = None
) -> Network:
    """Builds the backbone or the classifier of a config, in evaluation mode and on the CPU.

    Args:
        cfg: A config whose ``model`` has a `PRUNet` as its ``backbone``. Its ``init_cfg`` is not
            used, and neither are a detector's neck and heads nor a classifier's teacher built.
        part: A key of `PARTS`.
        checkpoint: A file or an address with the weights; None for random ones.
        size: Height and width of the images in pixels, or one number for both; None for the spec's
            resolution.

    Raises:
        ConfigError: There is no such part, or a classifier's images are prepared in a way that
            exported files cannot describe.
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
    spec = backbone.spec
    require_size(backbone, size or [spec.resolution])
    meta = load(module, checkpoint, part) if checkpoint else init(module)
    usage, outputs = None, tuple(f'stage{stage}' for stage in backbone.out_indices)
    if part == 'model':
        size = size or [spec.resolution]
        usage = Usage(
            'logits',
            class_names(cfg, meta, getattr(module.head, 'num_classes', 0)),
            preparation_of(cfg, spec.in_channels, spec.resolution, size),
        )
        outputs = ('logits',)
    size = tuple(size or [spec.resolution])
    size = size * 2 if len(size) == 1 else size
    metadata = describe(cfg, part, size, checkpoint, usage)
    return Network(
        module.eval(),
        spec.name,
        (spec.in_channels, *size),
        outputs,
        dict(metadata, **spec_metadata(backbone)),
        spec,
        usage,
    )


def require_size(backbone: nn.Module, size: Sequence[int]) -> None:
    """Refuses images that are too small for a `PRUNet`, with a SpecError."""
    for pixels in size:
        at_size = backbone.spec.to_dict() | dict(resolution=pixels)
        NetworkSpec.from_dict(at_size, source=f'images of {pixels} pixels')


def describe(
    cfg: Config,
    part: str,
    size: Sequence[int],
    checkpoint: str | None,
    usage: Usage | None = None,
) -> dict[str, str]:
    """What an exported file says of itself, whatever its backbone is."""
    metadata = dict(
        part=part,
        input_size=json.dumps(size),
        weights=Path(checkpoint).name if checkpoint else 'random',
    )
    if usage is not None:
        return metadata | usage.to_metadata()
    settings = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    known = {
        key: settings[key] for key in ('mean', 'std', 'to_rgb', 'bgr_to_rgb') if key in settings
    }
    return dict(metadata, preprocessing=json.dumps(known))


def spec_metadata(backbone: nn.Module) -> dict[str, str]:
    """What an exported file says of a `PRUNet`, and of another backbone nothing."""
    if not isinstance(backbone, PRUNet):
        return {}
    spec = json.dumps(backbone.spec.to_dict(), separators=(',', ':'))
    return dict(network=backbone.spec.name, spec=spec)


def _parts(cfg: Config, part: str) -> OrderedDict[str, nn.Module]:
    if part == 'model' and not cfg.model.get('head'):
        raise ConfigError(
            f'{cfg.filename}: the model has no head (model.head is not set), so only its '
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


def init(module: nn.Module) -> dict:
    """Random weights; returns what a checkpoint would say of itself, nothing."""
    # mmengine logs how each parameter was initialised.
    MMLogger.get_instance('export', logger_name='export', log_level='ERROR')
    module.init_weights()
    return {}


def load(module: nn.Module, checkpoint: str, part: str) -> dict:
    """Loads weights that have to fit to the last key; returns what the checkpoint says of itself.

    Raises:
        CheckpointError: It cannot be read, or they do not fit.
    """
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
    meta = content.get('meta')
    return meta if isinstance(meta, dict) else {}


def class_names(cfg: Config, meta: Mapping, count: int) -> tuple[str, ...]:
    """Names of a model's classes: the checkpoint's, the config's, their data set's, or numbers.

    Args:
        cfg: The config.
        meta: What the checkpoint says of itself.
        count: Number of classes; a list of another length is that of something else.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        kind = DATASETS.get(dataset['type']) if 'type' in dataset else None
    sources = meta.get('dataset_meta'), dataset.get('metainfo'), getattr(kind, 'METAINFO', None)
    for source in sources:
        names = (source or {}).get('classes')
        if isinstance(names, (list, tuple)) and len(names) == count:
            return tuple(map(str, names))
    return tuple(map(str, range(count)))
