"""Blocks and networks made ready to be timed by a backend, as many as fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from prunet_mm.latency.backends import Backend
from prunet_mm.latency.network import build_deployed_block, build_deployed_network
from prunet_mm.spec import BlockKey, NetworkSpec

INPUTS = 4


class Pool:
    """Prepares blocks and networks when they are first asked for.

    Those that come first stay, until they fill half of what memory is free: with all visited in
    turn, throwing out old ones for new ones would only throw out what is needed next. The others
    are prepared again each time.

    Args:
        backend: What runs them.
        dtype: 'float32', 'float16' or 'bfloat16'.
        batch: Images per pass.
    """

    def __init__(self, backend: Backend, dtype: str, batch: int) -> None:
        self.backend = backend
        self.dtype = getattr(torch, dtype)
        self.batch = batch
        self.ready: dict[BlockKey | int, Callable] = {}
        self.left = free_bytes(backend.device) // 2

    def block(self, key: BlockKey) -> Callable:
        """What runs a block: maps (batch, in, H, W) to its output."""
        return self._get(key, lambda: build_deployed_block(key), key)

    def network(self, name: int, spec: NetworkSpec) -> Callable:
        """What runs a whole network, kept under a name: maps (batch, C, H, W) to its output."""
        return self._get(name, lambda: build_deployed_network(spec), spec.block_keys()[0])

    def inputs(self, key: BlockKey, count: int = INPUTS) -> list[Any]:
        """Random inputs of a block: several, so that it does not find its input in the cache.

        Never zeros, which some hardware multiplies faster or at less power.
        """
        shape = self.batch, key.in_channels, key.height, key.width
        return [self.backend.convert(torch.randn(shape), self.dtype) for _ in range(count)]

    def _get(
        self, name: BlockKey | int, build: Callable[[], nn.Module], first: BlockKey
    ) -> Callable:
        if name in self.ready:
            return self.ready[name]
        module = build()
        ready = self.backend.prepare(module, self.inputs(first, 1), self.dtype)
        size = sum(weight.nbytes for weight in module.parameters())
        if size <= self.left:
            self.left -= size
            self.ready[name] = ready
        return ready


def free_bytes(device: str) -> int:
    """Memory that nothing uses, in bytes; 2 GiB where the system does not say."""
    if device != 'cpu':
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError):  # Windows, macOS
        return 2 * 2**30
