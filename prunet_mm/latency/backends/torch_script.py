"""The model traced, frozen and fused by TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from prunet_mm.latency.backends.eager import Eager


class TorchScript(Eager):
    """``torch.jit.trace``, ``freeze`` and ``optimize_for_inference``."""

    name = 'torchscript'

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        model = super().prepare(model, inputs, dtype)
        with warnings.catch_warnings(), torch.no_grad():
            # Of Python branches on shapes, which are fixed here, and of torch's plans for it.
            warnings.simplefilter('ignore')
            traced = torch.jit.trace(model, inputs[0], check_trace=False)
            return torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))
