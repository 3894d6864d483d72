"""Whether weights are those of the network that they are loaded into."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from prunet_mm.errors import CheckpointError


def require_fit(backbone: nn.Module, state_dict: Mapping, prefix: str) -> None:
    """Refuses weights that would leave a part of a backbone untouched.

    Args:
        backbone: A `PRUNet`.
        state_dict: Weights of a model that holds the backbone under ``prefix``.
        prefix: Such as ``'backbone.'``.

    Raises:
        CheckpointError: Names the first key that is missing, too much or of another shape.
    """
    own = {prefix + name: value.shape for name, value in backbone.state_dict().items()}
    found = {key: value.shape for key, value in state_dict.items() if key.startswith(prefix)}
    if why := _misfit(own, found):
        raise CheckpointError(f'these weights do not fit the network {backbone.spec.name!r}: {why}')


def _misfit(own: Mapping, found: Mapping) -> str | None:
    if not own.keys() & found.keys():
        return (
            f'none of its keys is there, such as {next(iter(own))!r} (checkpoints of NVIDIA have '
            'to be converted: tools/model_converters/gpunet_to_prunet.py)'
        )
    for key, shape in own.items():
        if key not in found and not key.endswith('num_batches_tracked'):
            return f'{key!r} is missing'
        if key in found and found[key] != shape:
            return f'{key!r} has shape {tuple(found[key])}, but the network {tuple(shape)}'
    extra = next((key for key in found if key not in own), None)
    return f'{extra!r} is no part of it' if extra else None
