"""Exporting a network: norms folded, written in a format, and checked before it becomes a file."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from prunet_mm.deploy.formats import FORMATS, Call
from prunet_mm.deploy.network import Network
from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import PrunetError
from prunet_mm.models.deploy import fold_norms

TOLERANCE = 1e-4
BATCHES = (1, 3)  # other than that of the example that networks are exported with


class Deviation(NamedTuple):
    """How far an output of an exported file is from PyTorch's.

    Attributes:
        output: Name of the output.
        shape: Of one image's output.
        batch: Images in the batch.
        error: Largest absolute difference, relative to ``magnitude``.
        magnitude: Largest absolute value that PyTorch computes.
    """

    output: str
    shape: tuple[int, ...]
    batch: int
    error: float
    magnitude: float


def export(network: Network, form: str, path: str | os.PathLike) -> list[Deviation]:
    """Writes a network to a file if the file computes what the network does.

    Args:
        network: What to export; stays as it is.
        form: A key of `FORMATS`.
        path: The file, which is replaced in one step.

    Returns:
        What the check has found.

    Raises:
        PrunetError: The check fails, or the file cannot be written; there is no new file then.
    """
    folded = replace(network, module=fold_norms(copy.deepcopy(network.module)))
    data = FORMATS[form].write(folded)
    deviations = compare(network, FORMATS[form].load(data))
    for found in deviations:
        if not found.error <= TOLERANCE:  # so that NaN fails
            raise PrunetError(
                f'{path} was not written: its output {found.output!r} is off by {found.error:.1e} '
                f'of the largest value at batch {found.batch}, while {TOLERANCE:.0e} is allowed; '
                'are there extreme weights or norm statistics in the checkpoint?'
            )
    write_atomic(path, data)
    return deviations


def compare(network: Network, call: Call, batches: Sequence[int] = BATCHES) -> list[Deviation]:
    """Runs a network and what was made of it on the same random images, in float32.

    Raises:
        PrunetError: Number or shape of the outputs differ.
    """
    deviations = []
    for batch in batches:
        x = torch.randn(batch, network.spec.in_channels, *network.size)
        with torch.no_grad():
            wanted = network.module(x)
        wanted = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
        found = call(x)
        shapes = [[tuple(y.shape) for y in ys] for ys in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise PrunetError(
                f'nothing was written: at batch {batch} the outputs have shapes {shapes[1]}, while '
                f'PyTorch computes {shapes[0]}'
            )
        for name, a, b in zip(network.outputs, wanted, found, strict=True):
            magnitude = a.abs().max().item()
            error = (a - b).abs().max().item() / max(magnitude, torch.finfo(a.dtype).tiny)
            deviations.append(Deviation(name, tuple(a.shape[1:]), batch, error, magnitude))
    return deviations
