"""Whether what is timed computes what the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from prunet_mm.errors import PrunetError

# Rounding alone took PRUNET-P0 1e-5, 6e-3 and 5e-2 away from float32; a wrong network ends up at 1.
TOLERANCE = dict(float32=1e-2, float16=5e-2, bfloat16=2e-1)


def check(found: Any, expected: Any, dtype: str) -> None:
    """Refuses outputs that are not the model's.

    Args:
        found: A tensor, or tensors in tuples, lists and dicts.
        expected: What the model computes in eager float32, with as many tensors.
        dtype: What ``found`` was computed in.

    Raises:
        PrunetError: The outputs are not finite, or too far away.
    """
    for tensor in tensors(found):
        if not tensor.isfinite().all():
            values = 'NaN' if tensor.isnan().any() else 'infinite values'
            raise PrunetError(f'the output has {values}')
    error = disagreement(found, expected)
    if not error <= TOLERANCE[dtype]:
        raise PrunetError(
            f'the output is {error:.1%} away from that of eager float32, '
            f'and {TOLERANCE[dtype]:.0%} is what rounding to {dtype} explains'
        )


def disagreement(found: Any, expected: Any) -> float:
    """The distance of outputs, relative to what is expected; the largest of several outputs.

    Infinite where their number or shapes differ.
    """
    pairs = list(tensors(found)), list(tensors(expected))
    if [x.shape for x in pairs[0]] != [x.shape for x in pairs[1]]:
        return float('inf')
    return max(
        float((x - y).norm() / y.norm().clamp_min(torch.finfo(y.dtype).tiny))
        for x, y in zip(*pairs, strict=True)
    )


def tensors(outputs: Any) -> Iterator[Tensor]:
    """All tensors in what a model returned, as float32 on the CPU."""
    if isinstance(outputs, Tensor):
        yield outputs.detach().to('cpu', torch.float32)
    elif isinstance(outputs, Mapping):
        yield from tensors(list(outputs.values()))
    elif isinstance(outputs, (list, tuple)):
        for output in outputs:
            yield from tensors(output)
