"""What a target on the command line can be, and what becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from prunet_mm.comparing.facts import count_macs, input_size
from prunet_mm.detection.post_processing import DetectorNetwork, PostProcessing, require_plain_head
from prunet_mm.engine.cli import load_config
from prunet_mm.engine.shipped import shipped_config
from prunet_mm.errors import ConfigError, PrunetError, one_line
from prunet_mm.latency.network import chain_of_blocks, settle_norms
from prunet_mm.models.deploy import fold_norms
from prunet_mm.spec import NetworkSpec, load_zoo, zoo_names
from prunet_mm.timing.agreement import disagreement

MODEL, BACKBONE = 'model', 'backbone'
# What a detector is timed as when it is timed as a whole.
NETWORK, DETECTOR = 'without post-processing', 'with post-processing'
# Outputs of a folded model are those of the model, within rounding.
FOLDED = 1e-3

Size = tuple[int, int]
Load = Callable[[str, str | None, Size | None], list['Subject']]


@dataclass(frozen=True, eq=False)
class Subject:
    """A target, ready to be timed.

    Attributes:
        name: What it is called in results.
        model: Maps images to logits or features: in eval mode, of random float32 weights, its norms
            folded where that leaves its outputs as they are.
        shape: (C, H, W) of an image.
        params: Learned parameters, those of folded norms included.
        macs: Multiply-accumulates of one image.
        spec: What it was built from, if that is a `NetworkSpec`.
        part: What of the target that is: the 'model', its 'backbone', or for a detector its network
            'without post-processing' or 'with post-processing'.
        after: What is run behind the network and timed with it, if anything is.
    """

    name: str
    model: nn.Module
    shape: tuple[int, int, int]
    params: int
    macs: int
    spec: NetworkSpec | None = None
    part: str = MODEL
    after: PostProcessing | None = None

    def __str__(self) -> str:
        return self.name if self.part == MODEL else f'{self.name}, {self.part}'


def load_targets(text: str, part: str | None = None, size: Size | None = None) -> list[Subject]:
    """Finds and builds what a command line names: one subject, or two of a whole detector.

    Weights are random: nothing is downloaded, and no latency depends on them.

    Args:
        text: The path of a config (.py) or a network (.json); a network of the zoo; or a model of
            timm or mmpretrain, as ``timm:NAME`` or ``mmpretrain:NAME``, or by its name alone where
            only one of them has it.
        part: 'model', or its 'backbone' alone. By default a detector's backbone, and the model of
            anything else. The model of a detector is timed without and with post-processing.
        size: Rows and columns of the images, if not the model's own.

    Raises:
        ConfigError: There is no such target, it cannot be built, has no such part, or does not take
            such images.
        SpecError: The file is no network.
    """
    load, name = _find(text)
    try:
        return load(name, part, size)
    except PrunetError:
        raise
    except Exception as error:  # a model may raise anything
        raise ConfigError(f'{text}: cannot be built and run: {one_line(error)}') from error


def _find(text: str) -> tuple[Load, str]:
    """How to load a target, and what it is called there."""
    library, colon, name = text.partition(':')
    if colon and library in _LIBRARIES:
        names = _names(library)
        if name not in names:
            raise ConfigError(f'{library} has no model "{name}"{_hint(name, names)}')
        return _LIBRARIES[library], name
    if Path(text).suffix == '.onnx':
        raise ConfigError(
            f'{text}: exported files are not timed: name the config that it was exported from, '
            'with --backend onnxruntime'
        )
    if Path(text).suffix in _FILES:
        return _FILES[Path(text).suffix], text
    if text in zoo_names():
        return _load_spec, text
    if shipped_config(text):
        return _load_config, text
    if Path(text).exists():
        raise ConfigError(f'{text}: expected a file that ends in {", ".join(_FILES)}')
    libraries = {library: _names(library) for library in _LIBRARIES}
    owners = [library for library, names in libraries.items() if text in names]
    if len(owners) == 1:
        return _LIBRARIES[owners[0]], text
    if owners:
        raise ConfigError(f'"{text}" is in several places: say {" or ".join(owners)}:{text}')
    known = [*zoo_names(), *(name for names in libraries.values() for name in names)]
    raise ConfigError(
        f'no network "{text}" in the zoo ({", ".join(zoo_names())}), in timm or in mmpretrain, and '
        f'no such file{_hint(text, known)}'
    )


def _names(library: str) -> list[str]:
    """The models of a library; none where it is not installed."""
    if find_spec(library) is None:
        return []
    if library == 'timm':
        import timm

        return timm.list_models() + timm.list_pretrained()
    from mmpretrain import list_models

    return list_models()


def _hint(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 3)
    return f'; did you mean {", ".join(close)}?' if close else ''


def load_spec(spec: NetworkSpec, part: str | None = None, size: Size | None = None) -> Subject:
    """The same for a network that is not on a command line."""
    part = part or MODEL
    if part == BACKBONE:
        spec = spec.model_copy(update=dict(tail=None))
    height, width = size or (spec.resolution,) * 2
    shape = spec.in_channels, height, width
    if height != width:  # no spec has images that are not square, and no table knows them
        return _subject(spec.name, chain_of_blocks(spec), shape, part)
    spec = spec.model_copy(update=dict(resolution=height))
    return _subject(spec.name, chain_of_blocks(spec), shape, part, spec)


def _load_spec(name: str, part: str | None, size: Size | None) -> list[Subject]:
    spec = NetworkSpec.load(name) if name.endswith('.json') else load_zoo(name)
    return [load_spec(spec, part, size)]


def _load_config(path: str, part: str | None, size: Size | None) -> list[Subject]:
    return _load_cfg(Path(path).stem, load_config(path), part, size)


def _load_mmpretrain(name: str, part: str | None, size: Size | None) -> list[Subject]:
    from mmpretrain.apis.model import ModelHub

    return _load_cfg(name, ModelHub.get(name).config, part, size)


def _load_cfg(name: str, cfg, part: str | None, size: Size | None) -> list[Subject]:
    from mmengine.registry import MODELS, DefaultScope

    if 'space' in cfg:
        raise ConfigError(
            f'{name} is a search config, not one network: take the subnet.json that a search wrote'
        )
    if 'model' not in cfg:
        raise ConfigError(f'{name}: there is no `model` in this config')
    scope = cfg.get('default_scope') or 'mmpretrain'
    detects = scope == 'mmdet'
    part = part or (BACKBONE if detects else MODEL)
    with DefaultScope.overwrite_default_scope(scope):
        # `init_weights` is not called: it may load a checkpoint.
        model = MODELS.build(cfg.model).eval()
    backbone = getattr(model, 'backbone', None)
    if part == BACKBONE and backbone is None:
        raise ConfigError(f'{name}: {type(model).__name__} has no backbone: leave --part out')
    if detects and part == MODEL:
        require_plain_head(model, name)
    spec = getattr(backbone, 'spec', None)
    size = size or input_size(cfg) or (spec and (spec.resolution,) * 2)
    if not size:
        raise ConfigError(f'{name} does not say how large images are: say --input-size')
    shape = _channels(model), *size
    if detects and part == MODEL:
        return _whole(name, model, shape)
    return [_subject(name, backbone if part == BACKBONE else model, shape, part)]


def _whole(name: str, detector: nn.Module, shape: tuple[int, int, int]) -> list[Subject]:
    network = _subject(name, DetectorNetwork(detector), shape, NETWORK)
    after = PostProcessing(network.model, shape)
    return [network, replace(network, part=DETECTOR, after=after)]


def _load_timm(name: str, part: str | None, size: Size | None) -> list[Subject]:
    import timm

    options = dict(features_only=True, out_indices=(-1,)) if part == BACKBONE else {}
    model = timm.create_model(name, **options).eval()
    channels, *own = model.pretrained_cfg['input_size']
    return [_subject(name, model, (channels, *(size or own)), part or MODEL)]


_FILES = {'.py': _load_config, '.json': _load_spec}
_LIBRARIES = {'timm': _load_timm, 'mmpretrain': _load_mmpretrain}


def _channels(model: nn.Module) -> int:
    """1 where the first convolution says so; others than 1 and 3 are not those of the image."""
    convs = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return 1 if next((conv.in_channels for conv in convs), 3) == 1 else 3


def _subject(
    name: str,
    module: nn.Module,
    shape: tuple[int, int, int],
    part: str,
    spec: NetworkSpec | None = None,
) -> Subject:
    # A shared parameter counts once.
    params = sum(parameter.numel() for parameter in module.parameters())
    macs = count_macs(module, shape)
    return Subject(name, _deployed(module, shape), shape, params, macs, spec, part)


@torch.no_grad()
def _deployed(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """The module with its norms folded, or as it is where that changes what it computes."""
    x = torch.randn(2, *shape)
    settle_norms(module, x)
    try:
        folded = fold_norms(copy.deepcopy(module))
    except ConfigError:
        return module
    # Folding goes by the order in which modules were made, which need not be that of the data.
    return folded if disagreement(folded(x[:1]), module(x[:1])) <= FOLDED else module
