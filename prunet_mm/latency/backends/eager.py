"""The model as it is, run by torch operation by operation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from prunet_mm.latency.backends.base import Backend


class Eager(Backend):
    """PyTorch eager."""

    name = 'eager'

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        return copy.deepcopy(model).to(self.device, dtype)
