"""How far a feature map is from another, as a share that does not depend on their scale."""

from __future__ import annotations

import torch
from torch import Tensor


def unexplained(found: Tensor, wanted: Tensor, passed: Tensor | None = None) -> Tensor:
    """The share of the variance of a map that another one leaves unexplained, 0-d.

    0 is perfect, 1 is what a constant per channel would do.

    Args:
        found: (N, C, H, W).
        wanted: The same shape.
        passed: The part of ``wanted`` that is none of its work, such as what a residual passes on:
            its variance does not count. The same shape.
    """
    work = wanted if passed is None else wanted - passed
    whole = (work - work.mean((0, 2, 3), keepdim=True)).square().sum()
    return (found - wanted).square().sum() / whole.clamp_min(torch.finfo(whole.dtype).tiny)
