"""Eager on tensors whose channels lie next to each other in memory (NHWC)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunet_mm.latency.backends.eager import Eager


class ChannelsLast(Eager):
    """PyTorch eager, with weights and images in ``torch.channels_last``."""

    name = 'channels-last'

    def convert(self, x, dtype):
        import torch

        x = super().convert(x, dtype)
        return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        return super().prepare(model, inputs, dtype).to(memory_format=torch.channels_last)
