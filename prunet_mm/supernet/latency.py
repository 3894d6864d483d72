"""What a SuperNet costs: expected, at least, at most, by a latency table in ms."""

from __future__ import annotations

import torch
from torch import Tensor

from prunet_mm.latency import LatencyTable


class LatencyMixin:
    """The latency of a SuperNet that has ``space``, ``layers()`` and ``remove_layer()``.

    Attributes:
        fixed_ms: Latency of all that is not searched.
    """

    fixed_ms = 0.0

    def attach_latency(self, table: LatencyTable) -> None:
        """Give every candidate its latencies in ms.

        Args:
            table: Has all blocks of the space.

        Raises:
            LatencyTableError: A block is missing.
        """
        table.require(self.space.block_keys())
        smallest = self.space.smallest()
        layers = smallest.block_keys()[len(smallest.stem) :][: len(smallest.layers)]
        self.fixed_ms = table.predict_ms(smallest) - sum(table.block_ms(key) for key in layers)
        for layer in self.layers().values():
            at = layer.position
            for candidate in at.candidates:
                if candidate.name in layer.candidates:
                    widths = candidate.widths or (0,)
                    costs = [
                        table.block_ms(at.layer(candidate, width).block_key(at.height, at.width))
                        for width in widths
                    ]
                    layer.candidates[candidate.name].latency_ms.copy_(
                        torch.tensor(costs, dtype=torch.float64)
                    )

    def fastest_ms(self) -> float:
        """Return the latency in ms of the fastest network that is left."""
        return self.fixed_ms + sum(
            min(layer.narrowest_ms().values()) for layer in self.layers().values() if layer.stays
        )

    def slowest_ms(self) -> float:
        """Return the latency in ms of the slowest network that is left: every layer, its dearest.

        The one with the most MACs may be faster.
        """
        return self.fixed_ms + sum(
            max(float(one.latency_ms.max()) for one in layer.candidates.values())
            for layer in self.layers().values()
        )

    def reachable_ms(self) -> float:
        """Return the lowest expected latency in ms that widths, logits and keeps can reach now.

        It is above :meth:`fastest_ms` until the skips open.
        """
        return self.fixed_ms + sum(
            min(layer.narrowest_ms().values()) for layer in self.layers().values()
        )

    def widest_ms(self, without: str | None = None) -> float:
        """Return the latency in ms of the most probable candidates at their widest.

        Args:
            without: Name of a layer to leave out.
        """
        return self.fixed_ms + sum(
            float(layer.candidates[layer.best()].latency_ms.max())
            for name, layer in self.layers().items()
            if name != without
        )

    def expected_latency_ms(self) -> Tensor:
        """Return E[latency] in ms: differentiable, free of noise, the same on all ranks."""
        return self.fixed_ms + sum(layer.expected_latency_ms() for layer in self.layers().values())
