"""Exporting a network: norms folded, written in a format, and checked before it becomes a file."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from prunet_mm.deploy.formats import FORMATS, OPSET, Call, Runtime
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
        runtime: What ran the file.
    """

    output: str
    shape: tuple[int, ...]
    batch: int
    error: float
    magnitude: float
    runtime: str = ''


def export(
    network: Network, form: str, path: str | os.PathLike, opset: int = OPSET
) -> list[Deviation]:
    """Writes a network to a file if the file computes what the network does.

    Args:
        network: What to export; stays as it is.
        form: A key of `FORMATS`.
        path: The file, which is replaced in one step.
        opset: Of ONNX.

    Returns:
        What the check has found.

    Raises:
        PrunetError: The check fails, or the file cannot be written; there is no new file then.
    """

    def check(name: str, call: Call) -> list[Deviation]:
        images = [torch.randn(batch, *network.shape) for batch in BATCHES]
        deviations = compare(network.module, network.outputs, call, images)
        require_small(deviations, path)
        return [found._replace(runtime=name) for found in deviations]

    return [found for part in write_checked(network, form, path, check, opset) for found in part]


def write_checked(
    network: Network,
    form: str,
    path: str | os.PathLike,
    check: Callable[[str, Call], object],
    opset: int = OPSET,
    runtimes: Sequence[Runtime] | None = None,
) -> list:
    """Writes a network to a file once nothing that runs such files here has failed a check.

    Args:
        network: What to export; stays as it is.
        form: A key of `FORMATS`.
        path: The file, which is replaced in one step.
        check: Takes the name of a runtime and what it made of the file's content; raises if that is
            not what it should be.
        opset: Of ONNX.
        runtimes: What to check it in; by default all of the format that are here.

    Returns:
        What ``check`` has returned for each runtime.
    """
    folded = replace(network, module=fold_norms(copy.deepcopy(network.module)))
    data = FORMATS[form].write(folded, opset)
    runtimes = FORMATS[form].installed() if runtimes is None else runtimes
    found = [check(runtime.name, runtime.load(data)) for runtime in runtimes]
    write_atomic(path, data)
    return found


def require_small(deviations: Sequence[Deviation], path: str | os.PathLike) -> None:
    """Refuses a file whose outputs are off by more than `TOLERANCE`, with a PrunetError."""
    for found in deviations:
        if not found.error <= TOLERANCE:  # so that NaN fails
            raise PrunetError(
                f'{path} was not written: its output {found.output!r} is off by {found.error:.1e} '
                f'of the largest value at batch {found.batch}, while {TOLERANCE:.0e} is allowed; '
                'are there extreme weights or norm statistics in the checkpoint?'
            )


def compare(
    reference: Callable[[Tensor], Tensor | Sequence[Tensor]],
    outputs: Sequence[str],
    call: Call,
    batches: Sequence[Tensor],
) -> list[Deviation]:
    """Runs a network and what was made of it on the same images, in float32.

    Raises:
        PrunetError: Number or shape of the outputs differ.
    """
    deviations = []
    for x in batches:
        with torch.no_grad():
            wanted = reference(x)
        wanted = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
        found = call(x)
        shapes = [[tuple(y.shape) for y in ys] for ys in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise PrunetError(
                f'nothing was written: at batch {len(x)} the outputs have shapes {shapes[1]}, '
                f'while PyTorch computes {shapes[0]}'
            )
        for name, a, b in zip(outputs, wanted, found, strict=True):
            magnitude = a.abs().max().item()
            error = (a - b).abs().max().item() / max(magnitude, torch.finfo(a.dtype).tiny)
            deviations.append(Deviation(name, tuple(a.shape[1:]), len(x), error, magnitude))
    return deviations
