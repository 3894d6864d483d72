"""Measures whole networks against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunet_mm.latency.device import require_device
from prunet_mm.latency.measure import (
    Measurement,
    Protocol,
    Target,
    deployed,
    measure,
    stopwatch_for,
)
from prunet_mm.latency.network import build_deployed_network, random_images
from prunet_mm.spec import NetworkSpec

PROTOCOL = Protocol(max_seconds=20)


def measure_networks(
    specs: Sequence[NetworkSpec],
    device: str = 'cpu',
    batch: int = 1,
    threads: int = 1,
    protocol: Protocol = PROTOCOL,
    progress: Callable[[float], None] = lambda done: None,
) -> Measurement:
    """Times networks with random weights, taking turns.

    Args:
        specs: The networks; each gets images of its own resolution.
        device: 'cpu', 'cuda' or 'cuda:N'.
        batch: Images per pass.
        threads: CPU threads.
        protocol: How long to measure.
        progress: Gets the part that is done, from 0 to 1.

    Returns:
        The samples; the label of a network is its index in ``specs``.

    Raises:
        ConfigError: There is no such device here.
    """
    require_device(device)
    with deployed(device, threads):
        targets = [
            Target(
                [(index, build_deployed_network(spec, device))],
                random_images(spec, batch, device),
            )
            for index, spec in enumerate(specs)
        ]
        return measure(lambda: targets, protocol, stopwatch_for(device, threads), progress)
