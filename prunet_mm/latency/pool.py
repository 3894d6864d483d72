"""Blocks and networks made ready to be timed by a backend, as many as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import nn

from prunet_mm.errors import PrunetError
from prunet_mm.latency.network import deployed_block, deployed_network
from prunet_mm.latency.table import readable
from prunet_mm.spec import BlockKey, NetworkSpec
from prunet_mm.timing import Settings
from prunet_mm.timing.agreement import check
from prunet_mm.timing.backends import find_backend
from prunet_mm.timing.engine import Stop, Target
from prunet_mm.timing.memory import free_bytes

INPUTS = 4


class Pool:
    """Prepares blocks and networks when they are first asked for, and checks what they compute.

    Those that come first stay, until they fill half of what memory is free: with all visited in
    turn, throwing out old ones for new ones would only throw out what is needed next. The others
    are prepared again each time.

    Args:
        settings: What runs them, and how.

    Raises:
        PrunetError: What a backend made of a block computes something else; by all methods.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backend = find_backend(settings.backend)(settings.device, settings.threads)
        self.dtype = getattr(torch, settings.dtype)
        self.ready: dict[Hashable, Callable] = {}
        self.reserve = free_bytes(settings.device) // 2
        self.kept = 0

    def target(self, keys: Sequence[BlockKey], inputs: Sequence[Any] | None = None) -> Target:
        """A chain of blocks, from (batch, in, H, W) of the first one to the output of the last."""
        steps = [self._get(key, readable(key), lambda k=key: deployed_block(k), key)
                 for key in keys]  # fmt: skip
        return Target(steps, inputs or self.inputs(keys[0]))

    def network(
        self, label: Hashable, spec: NetworkSpec, inputs: Sequence[Any] | None = None
    ) -> Stop:
        """A stop at a whole network: maps (batch, C, H, W) to its output."""
        first = spec.block_keys()[0]

        def target() -> Target:
            step = self._get(label, spec.name, lambda: deployed_network(spec), first)
            return Target([step], inputs or self.inputs(first))

        return Stop([label], target)

    def inputs(self, key: BlockKey) -> list[Any]:
        """Random inputs of a block: several, so that it does not find its input in the cache.

        Never zeros, which some hardware multiplies faster or at less power.
        """
        shape = self.settings.batch, key.in_channels, *key.size
        return [self.backend.convert(torch.randn(shape), self.dtype) for _ in range(INPUTS)]

    def _get(
        self, label: Hashable, name: str, build: Callable[[], nn.Module], first: BlockKey
    ) -> Callable:
        if label in self.ready:
            return self.ready[label]
        module, x = build(), torch.randn(self.settings.batch, first.in_channels, *first.size)
        converted = self.backend.convert(x, self.dtype)
        ready = self.backend.prepare(module, [converted], self.dtype)
        try:
            check(ready(converted), module(x), self.settings.dtype)
        except PrunetError as error:
            raise PrunetError(f'{name} on {self.settings.backend}: {error}') from error
        ready(converted)  # TorchScript watches the first call, and compiles in the second
        if self._fits(sum(weight.nbytes for weight in module.parameters())):
            self.ready[label] = ready
        return ready

    def _fits(self, size: int) -> bool:
        """Whether what was just prepared, of that many bytes of weights, can stay."""
        if self.settings.device != 'cpu':  # where a graph may take more than its weights
            return free_bytes(self.settings.device) >= self.reserve
        # Here the system lends what is free to files, so that it says little later on.
        if self.kept + size > self.reserve:
            return False
        self.kept += size
        return True
