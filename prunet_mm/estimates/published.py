"""Latencies that others have published: measured, but not by us."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from prunet_mm.spec import NetworkSpec, load_zoo, zoo_names

FILE = Path(__file__).with_name('published.json')


class Published(NamedTuple):
    """One published figure.

    Attributes:
        network: Its name in the zoo.
        device: What the report calls it.
        batch: Images per pass.
    """

    network: str
    device: str
    batch: int
    latency_ms: float


def load_published() -> list[Published]:
    """All figures; `protocol` says how they were measured."""
    return [Published(*row) for row in _content()['rows']]


def protocol() -> str:
    """How the figures were measured, in words. Figures of another protocol do not compare."""
    return _content()['protocol']


def find_published(spec: NetworkSpec, device: str, batch: int) -> float | None:
    """The published latency of a network in ms, for a batch of images; None where there is none.

    Args:
        spec: Compared block by block with the network of the zoo that has its name.
        device: See `Published`.
        batch: Images per pass.
    """
    if spec.name not in zoo_names() or load_zoo(spec.name).block_keys() != spec.block_keys():
        return None
    known = {row[:3]: row.latency_ms for row in load_published()}
    return known.get((spec.name, device, batch))


@cache
def _content() -> dict:
    return json.loads(FILE.read_text('utf-8'))
