"""Weights of timm's networks for our classifiers, and the proof that they compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from prunet_mm.errors import CheckpointError
from prunet_mm.spec import NetworkSpec
from prunet_mm.spec.timm import modules

COUNTER = 'num_batches_tracked'  # of a norm; not every code keeps it


def classifier_cfg(spec: NetworkSpec) -> dict[str, Any]:
    """The config of the classifier that a spec with a tail describes."""
    tail, channels = spec.tail, spec.layers[-1].out_channels
    neck = {key: value for key, value in dict(tail).items() if key != 'num_classes'}
    neck |= dict(in_channels=channels, norm_cfg=dict(type='BN', eps=spec.norm_eps))
    return dict(
        type='ImageClassifier',
        backbone=dict(type='PRUNet', arch=spec.to_dict()),
        neck=dict(type='PRUNetTail', **neck),
        head=dict(
            type='LinearClsHead',
            num_classes=tail.num_classes,
            in_channels=tail.out_channels(channels),
        ),
    )


def in_timms_names(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> dict:
    """The tensors by timm's names.

    Where the names are other ones, as in another code for the same network, the order decides, in
    which data passes them, and of a name only the last part counts, such as ``running_mean``.

    Args:
        model: timm's network.
        tensors: What a checkpoint of it, or of another code, holds.
        source: What an error names as the place where they are from.

    Raises:
        CheckpointError: They are those of another network; names the first that differs.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith(COUNTER)}
    found = {k: v for k, v in tensors.items() if not k.endswith(COUNTER)}
    if wanted.keys() == found.keys():
        found = {key: found[key] for key in wanted}
    for (key, one), (name, other) in zip(wanted.items(), found.items(), strict=False):
        if _last(key) != _last(name) or one.shape != other.shape:
            raise CheckpointError(
                f'{source}: these weights are of another network: {name!r} of shape '
                f'{list(other.shape)} is where {key!r} of shape {list(one.shape)} is expected'
            )
    if len(wanted) != len(found):
        first = [*(found if len(found) > len(wanted) else wanted)][min(len(found), len(wanted))]
        what = 'is too much' if len(found) > len(wanted) else 'is missing'
        raise CheckpointError(f'{source}: these weights are of another network: {first!r} {what}')
    return dict(zip(wanted, found.values(), strict=True))


def in_our_names(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of timm's network by the names that our classifier has for them."""
    names, ours = modules(spec), {}
    for key, tensor in tensors.items():
        module, _, last = key.rpartition('.')
        ours[f'{names[module]}.{last}'] = tensor
        if last == 'running_var':
            ours[f'{names[module]}.{COUNTER}'] = torch.tensor(0)
    return ours


@torch.no_grad()
def difference(model: nn.Module, ours: nn.Module, images: Tensor) -> float:
    """The largest difference of two classifiers' logits, as a share of timm's largest.

    Args:
        model: timm's.
        ours: mmpretrain's, on a `PRUNet`.
        images: (N, C, H, W).
    """
    expected = model.eval()(images)
    found = ours.eval()(images, mode='tensor')
    return float((found - expected).abs().max() / expected.abs().max())


def build_classifier(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Our classifier with these weights, all of which it has to take."""
    with torch.device('meta'):
        classifier = MODELS.build(classifier_cfg(spec))
    classifier.load_state_dict(tensors, strict=True, assign=True)
    return classifier


def _last(key: str) -> str:
    return key.rpartition('.')[2]
