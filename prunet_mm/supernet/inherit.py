"""A derived network that starts from the weights it had in the SuperNet."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from prunet_mm.engine.checkpoint import load_from_plain_data, weights_of
from prunet_mm.errors import CheckpointError, ConfigError, PrunetError
from prunet_mm.models import PRUNet
from prunet_mm.spec import LayerSpec, NetworkSpec, SearchSpace
from prunet_mm.supernet.structure import read_structure


@WEIGHT_INITIALIZERS.register_module(name='SuperNet')
class SuperNetInit:
    """Initialises a `PRUNet` from a checkpoint of the search that it was found by.

    In a config: ``backbone=dict(type='PRUNet', arch='subnet.json', init_cfg=dict(type='SuperNet',
    checkpoint='searched.pth'))``.

    Args:
        checkpoint: Path or address of the checkpoint.
        prefix: Of the SuperNet's keys in it, such as ``'architecture.backbone.'``; found by itself
            where the checkpoint holds one SuperNet.

    Raises:
        ConfigError: On a call with anything but a `PRUNet`.
        CheckpointError: On a call where the checkpoint cannot be read, or as `inherit_weights`
            does.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None) -> None:
        self.checkpoint, self.prefix = checkpoint, prefix

    def __call__(self, module: nn.Module) -> None:
        if not isinstance(module, PRUNet):
            raise ConfigError(
                f"init_cfg: type 'SuperNet' is for a backbone of type PRUNet, found a "
                f'{type(module).__name__}'
            )
        weights = weights_of(load_from_plain_data(self.checkpoint))
        try:
            sources = inherit_weights(module, weights, self.prefix)
        except PrunetError as error:
            raise CheckpointError(f'{self.checkpoint}: {error}') from error
        blocks = ', '.join(f'{layer} {candidate}' for layer, candidate in sources)
        print_log(f'the backbone starts from {blocks} of {self.checkpoint}', 'current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, f'SuperNetInit: from {self.checkpoint}')


def inherit_weights(
    backbone: PRUNet, state_dict: Mapping[str, Tensor], prefix: str | None = None
) -> list[tuple[str, str]]:
    """Copy into a network the weights and statistics that its layers have in a SuperNet.

    A layer starts from the candidate of its op and kernel, cut to the first of its hidden
    channels, which are those that every narrower path of a Prunode uses. Resolution and tail of
    the network may differ from the space's: neither changes a backbone's weights.

    Where fewer layers of a stage are in the network than left in the SuperNet, as in a checkpoint
    from before pruning, those are taken that the SuperNet finds most probable: candidate times
    keep coefficient, over the stage, in the order of the layers.

    Args:
        backbone: The network; its norms are of type BN and not folded.
        state_dict: Weights that hold a SuperNet.
        prefix: Of the SuperNet's keys; None where there is one SuperNet.

    Returns:
        Layer and candidate that each layer of the network, without the stem, starts from.

    Raises:
        CheckpointError: There is no such SuperNet, the network is not in its search space, what
            the network needs has been pruned, or two choices of layers are equally probable.
    """
    weights = _supernet_weights(state_dict, prefix)
    structure = read_structure(weights['structure'])
    space = SearchSpace.from_dict(structure['space'], source='the search space in it')
    spec = backbone.spec.model_copy(update=dict(resolution=space.resolution, tail=space.tail))
    if wrong := space.why_not(spec):
        raise CheckpointError(
            f'the network {spec.name!r} is none of its search space {space.name!r}: {wrong}'
        )
    if structure.get('sampling') == 'hard':  # its probabilities know no temperature
        weights['temperature'] = torch.ones(())
    sources = _sources(spec, structure['layers'], weights)
    for index, block in enumerate(backbone.stem):
        _copy(block, weights, f'stem.{index}.')
    blocks = [block for stage in backbone.stages for block in getattr(backbone, f'stage{stage}')]
    sources = sources[: len(blocks)]  # without the stages behind the last one in out_indices
    for index, (block, (layer, candidate)) in enumerate(zip(blocks, sources, strict=True)):
        try:
            _copy(block, weights, f'{layer}.candidates.{candidate}.block.')
        except CheckpointError as error:
            hidden = spec.layers[index].hidden
            raise CheckpointError(f'layers[{index}], hidden {hidden}: {error}') from error
    return sources


class _Weights(dict):
    """The SuperNet's weights by name."""

    def __missing__(self, name: str) -> Tensor:
        raise CheckpointError(
            f'{name!r} is missing in its SuperNet: the network has to have norms of type BN, not '
            'folded (deploy=False), and the checkpoint to be complete'
        )


def _supernet_weights(state_dict: Mapping, prefix: str | None) -> _Weights:
    """The weights of the SuperNet under a prefix, by default of the only one there is."""
    found = [
        key[: -len('structure')]
        for key, value in state_dict.items()
        if f'.{key}'.endswith('.structure') and getattr(value, 'dtype', None) == torch.uint8
    ]
    if not found:
        raise CheckpointError('holds no SuperNet: give a checkpoint of a search (searched.pth)')
    known = f'prefix may be {" or ".join(map(repr, found))}'
    if prefix is None and len(found) > 1:
        raise CheckpointError(f'holds several SuperNets, and no prefix is given: {known}')
    wanted = found[0] if prefix is None else f'{prefix.rstrip(".")}.'.removeprefix('.')
    if wanted not in found:
        raise CheckpointError(f'holds no SuperNet at {wanted!r}: {known}')
    return _Weights(
        (key[len(wanted) :], value) for key, value in state_dict.items() if key.startswith(wanted)
    )


def _sources(
    spec: NetworkSpec, left: Mapping[str, list[str]], weights: _Weights
) -> list[tuple[str, str]]:
    """Layer and candidate of the SuperNet for each layer of a network.

    Args:
        spec: A network of the SuperNet's space.
        left: Candidates that are left, by layer, input to output.
        weights: Of the SuperNet.
    """
    sources = []
    for stage in spec.out_channels:
        names = [name for name in left if name.startswith(f'stage{stage}.')]
        layers = {f'layers[{i}]': one for i, one in enumerate(spec.layers) if one.stage == stage}
        chances = {name: _log_chances(name, left[name], weights) for name in names}
        path = _most_probable(layers, chances)
        sources += zip(path, map(_candidate, layers.values()), strict=True)
    return sources


def _candidate(layer: LayerSpec) -> str:
    return f'{layer.op}_k{layer.kernel}'


def _log_chances(name: str, candidates: list[str], weights: _Weights) -> dict[str, float]:
    """Logarithm of the probability that a layer is there, by the candidate that it then is."""
    logits = torch.stack([weights[f'{name}.logits.{candidate}'] for candidate in candidates])
    chances = (logits.double() / weights['temperature']).log_softmax(0)
    keep = weights.get(f'{name}.keep')  # the first layer of a stage has none
    if keep is not None:
        chances = chances + keep.double().log()
    return dict(zip(candidates, chances.tolist(), strict=True))


def _most_probable(
    layers: Mapping[str, LayerSpec], chances: Mapping[str, Mapping[str, float]]
) -> tuple[str, ...]:
    """The SuperNet's layers that a stage's layers are most probably, in their order.

    Args:
        layers: The layers of one stage of a network, by what an error calls them.
        chances: What `_log_chances` returns, by the SuperNet's layers in that stage.
    """
    names = list(chances)
    if len(names) < len(layers):
        raise CheckpointError(
            f'{", ".join(layers)} are {len(layers)} layers, but left in the SuperNet are '
            f'{len(names)}: {", ".join(names)}'
        )
    paths = {(): 0.0}
    for place, layer in layers.items():
        candidate = _candidate(layer)
        # The first layer, which changes width and stride, is in every network.
        paths = {
            (*path, name): chance + chances[name][candidate]
            for path, chance in paths.items()
            for name in (names[names.index(path[-1]) + 1 :] if path else names[:1])
            if candidate in chances[name]
        }
        if not paths:
            kept = '; '.join(f'{name}: {", ".join(chances[name])}' for name in names)
            raise CheckpointError(f'{place}: {candidate} has been pruned, left are {kept}')
    best, *others = sorted(paths, key=paths.get, reverse=True)
    if others and math.isclose(paths[best], paths[others[0]], abs_tol=1e-6):
        raise CheckpointError(
            f'{", ".join(layers)} may be {", ".join(best)} or {", ".join(others[0])}, which are '
            'equally probable: give a checkpoint of later in the search'
        )
    return best


@torch.no_grad()
def _copy(block: nn.Module, weights: _Weights, prefix: str) -> None:
    """Copy into a block the leading channels of the weights under a prefix."""
    for name, target in block.state_dict().items():
        source = weights[prefix + name]
        sizes = list(zip(source.shape, target.shape, strict=False))
        if source.dim() != target.dim() or any(there < here for there, here in sizes):
            raise CheckpointError(
                f'{prefix}{name} has shape {tuple(source.shape)}, needed is {tuple(target.shape)}'
            )
        target.copy_(source[tuple(slice(size) for size in target.shape)])
