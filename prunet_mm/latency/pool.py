"""Blocks and networks made ready to be timed by a backend, as many as fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunet_mm.errors import PrunetError
from prunet_mm.latency.agreement import check
from prunet_mm.latency.backends import Backend
from prunet_mm.latency.backends.base import SelfTimed
from prunet_mm.latency.memory import available_bytes
from prunet_mm.latency.network import build_deployed_block, build_deployed_network
from prunet_mm.latency.table import readable
from prunet_mm.spec import BlockKey, NetworkSpec

INPUTS = 4


class Pool:
    """Prepares blocks and networks when they are first asked for, and checks what they compute.

    Those that come first stay, until they fill half of what memory is free: with all visited in
    turn, throwing out old ones for new ones would only throw out what is needed next. The others
    are prepared again each time.

    Args:
        backend: What runs them.
        dtype: 'float32', 'float16' or 'bfloat16'.
        batch: Images per pass.

    Raises:
        PrunetError: What a backend made of a block computes something else; by all methods.
    """

    def __init__(self, backend: Backend, dtype: str, batch: int) -> None:
        self.backend = backend
        self.dtype = getattr(torch, dtype)
        self.batch = batch
        self.ready: dict[BlockKey | int, Callable] = {}
        self.reserve = free_bytes(backend.device) // 2
        self.kept = 0

    def block(self, key: BlockKey) -> Callable:
        """What runs a block: maps (batch, in, H, W) to its output."""
        return self._get(key, readable(key), lambda: build_deployed_block(key), key)

    def network(self, name: int, spec: NetworkSpec) -> Callable:
        """What runs a whole network, kept under a name: maps (batch, C, H, W) to its output."""
        build = partial(build_deployed_network, spec)
        return self._get(name, 'a random network', build, spec.block_keys()[0])

    def inputs(self, key: BlockKey) -> list[Any]:
        """Random inputs of a block: several, so that it does not find its input in the cache.

        Never zeros, which some hardware multiplies faster or at less power.
        """
        return [self.backend.convert(self._input(key), self.dtype) for _ in range(INPUTS)]

    def _input(self, key: BlockKey) -> Tensor:
        return torch.randn(self.batch, key.in_channels, key.height, key.width)

    def _get(
        self, key: BlockKey | int, name: str, build: Callable[[], nn.Module], first: BlockKey
    ) -> Callable:
        if key in self.ready:
            return self.ready[key]
        module, x = build(), self._input(first)
        converted = self.backend.convert(x, self.dtype)
        ready = self.backend.prepare(module, [converted], self.dtype)
        try:
            check(ready(converted), module(x), str(self.dtype).removeprefix('torch.'))
        except PrunetError as error:
            raise PrunetError(f'{name} on {self.backend.name}: {error}') from error
        if not isinstance(ready, SelfTimed):
            ready(converted)  # TorchScript watches the first call, and compiles in the second
        if self._fits(sum(weight.nbytes for weight in module.parameters())):
            self.ready[key] = ready
        return ready

    def _fits(self, size: int) -> bool:
        """Whether what was just prepared, of that many bytes of weights, can stay."""
        if self.backend.device != 'cpu':  # where a graph may take more than its weights
            return free_bytes(self.backend.device) >= self.reserve
        # Here the system lends what is free to files, so that it says little later on.
        if self.kept + size > self.reserve:
            return False
        self.kept += size
        return True


def free_bytes(device: str) -> int:
    """Memory that can still be had, in bytes; 2 GiB where the system does not say."""
    if device != 'cpu':
        return torch.cuda.mem_get_info(device)[0]
    return available_bytes() or 2 * 2**30
