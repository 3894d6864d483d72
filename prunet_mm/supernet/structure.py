"""What is left of a SuperNet, as a tensor that any state dict can carry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunet_mm.errors import CheckpointError


def write_structure(data: dict) -> Tensor:
    """Encode plain data as JSON in a tensor of bytes."""
    return torch.frombuffer(bytearray(json.dumps(data).encode()), dtype=torch.uint8)


def read_structure(structure: Tensor) -> dict:
    """Decode the buffer ``structure`` of a SuperNet's state dict.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return json.loads(bytes(structure.cpu().tolist()))
    except ValueError:
        raise CheckpointError(
            "The checkpoint's record of what has been pruned is damaged; use an older checkpoint."
        ) from None


def require_fit(data: dict, space: dict, rule: dict, here: Mapping[str, Sequence[str]]) -> None:
    """Refuse a structure that a SuperNet cannot be pruned to.

    Args:
        data: The structure.
        space: The SuperNet's space as plain data.
        rule: The options of its walking rule.
        here: Names of its candidates by layer.

    Raises:
        CheckpointError: It is of another version, space or rule, or holds more than is left here.
    """
    if 'stays' not in data:
        raise CheckpointError(
            'The checkpoint is of an earlier version of prunet_mm, which settled its choices in '
            'another way; use that version, or search anew.'
        )
    if data['space'] != space or data['rule']['type'] != rule['type']:
        raise CheckpointError(
            'The checkpoint is of a SuperNet of another search space or walking rule than '
            'the config describes; use the config that it was searched with.'
        )
    for name, candidates in data['layers'].items():
        if set(candidates) - set(here.get(name, ())):
            raise CheckpointError(
                f'The checkpoint holds {name} with {", ".join(candidates)}, part of which has '
                'been pruned here; load it into a new SuperNet.'
            )
