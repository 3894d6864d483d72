"""A SuperNet that starts as a trained network of its space, whatever else it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from prunet_mm.engine.checkpoint import load_from_plain_data, weights_of
from prunet_mm.errors import CheckpointError, ConfigError, PrunetError
from prunet_mm.models import PRUNet
from prunet_mm.spec import Candidate, LayerSpec
from prunet_mm.spec.kernels import INVERTED
from prunet_mm.supernet.supernet import SuperNet

IMPORTANCES = ('taylor', 'magnitude')
OWN = 1e-3  # how far the logit of the network's own candidate is above the others at the start


@WEIGHT_INITIALIZERS.register_module(name='TrainedNetwork')
class TrainedNetworkInit:
    """Initialises a SuperNet as a trained network; see `start_as`.

    In a config: ``backbone=dict(type='SuperNet', space=dict(type='around', arch='net.json'),
    init_cfg=dict(type='TrainedNetwork', arch='net.json', checkpoint='net.pth'))``.

    Args:
        arch: The network, as a `PRUNet` takes it.
        checkpoint: Path or address of its weights.
        prefix: Of the backbone's keys in it.
        importance: What a search sorts hidden channels by before its first step: ``'taylor'``, on
            the architecture's images, or ``'magnitude'``, which takes none.
        imitation: Steps before the first one of a search in which candidates that cannot be had
            from the network learn to do what its layers do; with 0 such candidates are refused.

    Raises:
        ConfigError: Another importance or imitation, or on a call with anything but a SuperNet, or
            as `start_as` does.
        CheckpointError: On a call where the checkpoint cannot be read or is of another network.
    """

    def __init__(
        self,
        arch: str | Mapping,
        checkpoint: str,
        prefix: str = 'backbone.',
        importance: str = 'taylor',
        imitation: int = 0,
    ) -> None:
        if importance not in IMPORTANCES:
            raise ConfigError(
                f'init_cfg.importance: found {importance!r}, expected one of '
                f'{", ".join(IMPORTANCES)}'
            )
        if type(imitation) is not int or imitation < 0:
            raise ConfigError(
                f'init_cfg.imitation: found {imitation!r}, expected a number of steps, 0 for none'
            )
        self.arch, self.checkpoint, self.prefix = arch, checkpoint, prefix
        self.importance, self.imitation = importance, imitation

    def __call__(self, module: nn.Module) -> None:
        if not isinstance(module, SuperNet):
            raise ConfigError(
                f"init_cfg: type 'TrainedNetwork' is for a backbone of type SuperNet, found a "
                f'{type(module).__name__}'
            )
        weights = weights_of(load_from_plain_data(self.checkpoint))
        network = PRUNet(self.arch, out_indices=module.out_indices)
        own = {
            k.removeprefix(self.prefix): x for k, x in weights.items() if k.startswith(self.prefix)
        }
        try:
            network.load_state_dict(own)
        except (PrunetError, RuntimeError) as error:
            raise CheckpointError(f'{self.checkpoint}: {" ".join(str(error).split())}') from error
        start_as(module, network, imitated=self.imitation > 0)
        module.importance, module.imitation = self.importance, self.imitation
        print_log(f'the SuperNet starts as {network.spec.name} of {self.checkpoint}', 'current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, f'TrainedNetworkInit: from {self.checkpoint}')


@torch.no_grad()
def start_as(supernet: SuperNet, network: PRUNet, imitated: bool = False) -> None:
    """Give a SuperNet the weights and statistics of a network that has all of its layers.

    Hidden channels are sorted by magnitude, so that the first ones, which every narrower path has,
    are the best to keep; a search sorts them anew, by Taylor importance. A candidate with a larger
    kernel starts from the network's with zeros around it, one with a smaller kernel from its
    centre. Where hidden widths go beyond the network's, the projection of new channels is zero. The
    network's own candidates are the most probable ones. So the output stays that of the network.

    Args:
        supernet: At its widest, as it is made.
        network: Its norms are not folded.
        imitated: Candidates that cannot be had from the network start from what is nearest, with
            outputs of their own; else they are refused.

    Raises:
        ConfigError: A layer or candidate cannot be had from the network; names it.
    """
    layers, blocks = supernet.layers(), _blocks(network)
    if len(layers) != len(blocks):
        raise ConfigError(
            f'the SuperNet has {len(layers)} layers and {network.spec.name} {len(blocks)}: it can '
            'start as a network that has all of them (space=dict(type="around", ...))'
        )
    _copy(supernet.stem, network.stem.state_dict())
    for (name, layer), spec, block in zip(
        layers.items(), network.spec.layers, blocks, strict=False
    ):
        weights = {key: value.clone() for key, value in block.state_dict().items()}
        if spec.op in INVERTED:
            order = magnitude(block).argsort(descending=True, stable=True)
            weights |= dict(_sorted(weights, order))
        for candidate in layer.position.candidates:
            if not imitated and not alike(candidate, spec):
                raise ConfigError(
                    f'{name}: the candidate {candidate.name} cannot be had from the {spec.op} of '
                    f'{network.spec.name}: it has another op, activation or '
                    'squeeze-and-excitation; leave it out, or give init_cfg.imitation the number '
                    'of steps in which it is to imitate the layer'
                )
            if near := _nearest(candidate, spec, block, weights):
                _copy(layer.candidates[candidate.name].block, near)
            own = alike(candidate, spec) and candidate.kernel == spec.kernel
            layer.logits[candidate.name].fill_(OWN if own else 0.0)


def alike(one: Candidate | LayerSpec, other: Candidate | LayerSpec) -> bool:
    """Whether two blocks have the same weights, but for the size of the kernel."""
    return (one.op, one.act, one.se) == (other.op, other.act, other.se)


def _nearest(
    candidate: Candidate, spec: LayerSpec, block: nn.Module, weights: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """What a candidate starts from: the block's weights, or what is nearest to them, or nothing.

    Without the activation between them, expansion and depthwise convolution are one convolution,
    that of a fused block. Ours: from there it learns to imitate sooner than from random weights.
    """
    if candidate.se == spec.se and candidate.op == spec.op:
        return weights
    if candidate.se != spec.se or (spec.op, candidate.op) != ('irb', 'fused_irb'):
        return {}
    scale = (
        weights['expand.bn.weight']
        * (weights['expand.bn.running_var'] + block.expand.bn.eps).rsqrt()
    )
    fused = {
        name.replace('depthwise.', 'expand.'): value
        for name, value in weights.items()
        if not name.startswith('expand.')
    }
    fused['expand.conv.weight'] = (
        scale.view(-1, 1, 1, 1) * weights['expand.conv.weight'] * weights['depthwise.conv.weight']
    )
    return fused


def magnitude(block: nn.Module) -> Tensor:
    """The importance of an inverted residual's hidden channels, (hidden,): what they can pass on.

    The scale of the last norm in front of the projection, times the length of its weights.
    """
    last = block.depthwise if hasattr(block, 'depthwise') else block.expand
    return last.bn.weight.abs() * block.project.conv.weight.flatten(1).norm(dim=0)


def _blocks(network: PRUNet) -> list[nn.Module]:
    return [block for stage in network.stages for block in getattr(network, f'stage{stage}')]


def _sorted(weights: Mapping[str, Tensor], order: Tensor) -> Iterator[tuple[str, Tensor]]:
    """An inverted residual's weights with its hidden channels in another order."""
    for name, value in weights.items():
        if name in ('project.conv.weight', 'se.reduce.weight'):
            yield name, value[:, order]
        elif value.ndim and not name.startswith(('project.', 'se.reduce.')):
            yield name, value[order]


def _copy(block: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies into a block the weights of one that may be narrower or have another kernel."""
    for name, target in block.state_dict().items():
        source = weights[name]
        if source.ndim == 4:
            source = _fitted(source, target.shape[-1])
            if target.shape[1] > source.shape[1]:  # new channels: they pass nothing on
                target.zero_()
        target[tuple(slice(size) for size in source.shape)] = source


def _fitted(weight: Tensor, kernel: int) -> Tensor:
    """A convolution's weight with zeros around it, or its centre."""
    return F.pad(weight, [(kernel - weight.shape[-1]) // 2] * 4)  # negative padding cuts
