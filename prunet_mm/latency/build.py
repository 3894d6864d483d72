"""Measures the table of a search space, block by block inside of random networks."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

import numpy as np
from torch import Tensor, nn

from prunet_mm.latency.device import device_name, software
from prunet_mm.latency.measure import (
    Measurement,
    Protocol,
    Target,
    Timing,
    deployed,
    measure,
    stopwatch_for,
)
from prunet_mm.latency.network import (
    build_deployed_block,
    build_deployed_network,
    random_images,
)
from prunet_mm.latency.table import Entry, LatencyTable, Validation
from prunet_mm.spec import BlockKey, NetworkSpec, SearchSpace

MOST_WIDTHS = 10
POOL_BYTES = 2**30
PROTOCOL = Protocol()
# (noise of a network's error / how far overhead and scale are from 0 and 1) squared: 4 % and 20 %.
PRIOR = 0.04


Place = tuple[BlockKey, ...]


def places(space: SearchSpace, most_widths: int | None = MOST_WIDTHS) -> list[list[Place]]:
    """The blocks to measure, by stage and layer; stem and tail are stages of their own.

    Args:
        space: What to measure.
        most_widths: Of each candidate's hidden widths, that many are measured, evenly spread from
            the smallest to the largest; None for all.
    """
    fixed = space.largest().block_keys()
    stages: list[list[Place]] = [[] for _ in space.stages]
    for position in space.positions():
        layers = (
            position.layer(candidate, hidden)
            for candidate in position.candidates
            for hidden in spread(candidate.widths, most_widths) or (0,)
        )
        keys = tuple(layer.block_key(position.height, position.width) for layer in layers)
        stages[position.stage - 1].append(keys)
    stem = [[(key,)] for key in fixed[: len(space.stem_layers)]]
    return [*stem, *stages, [(fixed[-1],)]] if space.tail else [*stem, *stages]


def spread(widths: tuple[int, ...], most: int | None) -> tuple[int, ...]:
    """At most ``most`` of the widths, evenly spread, the first and the last always among them."""
    if most is None or len(widths) <= most:
        return widths
    return tuple(
        widths[index] for index in np.linspace(0, len(widths) - 1, most).round().astype(int)
    )


def build_table(
    space: SearchSpace,
    device: str = 'cpu',
    batch: int = 64,
    threads: int = 1,
    most_widths: int | None = MOST_WIDTHS,
    validate: int = 30,
    protocol: Protocol = PROTOCOL,
    progress: Callable[[float], None] = lambda done: None,
    seed: int = 0,
) -> tuple[LatencyTable, Measurement]:
    """Measures every block of a space on a device.

    A block is timed where it stands: each round makes random networks that between them have every
    block, and takes the time from block to block. Measured alone, over and over, a block finds its
    weights and its memory in the cache, which in a network others have used since, and the sum over
    a network is too low.

    Args:
        space: What to measure.
        device: 'cpu', 'cuda' or 'cuda:N'.
        batch: Images per pass.
        threads: CPU threads.
        most_widths: See `places`.
        validate: Random networks of the space that are timed as a whole, between the others: on
            one half overhead and scale are fitted, on the other the prediction is tested. 0
            for neither.
        protocol: How long to measure.
        progress: Gets the part that is done, from 0 to 1.
        seed: Decides the networks.

    Returns:
        The table, and the samples it is from.

    Raises:
        ConfigError: There is no such device here.
    """
    name, rng = device_name(device), random.Random(seed)
    blocks, stages = _Pool(device), places(space, most_widths)
    specs = [space.random(rng) for _ in range(validate)]
    with deployed(device, threads):
        images = random_images(space.largest(), batch, device)
        whole = [
            Target([(index, build_deployed_network(spec, device))], images)
            for index, spec in enumerate(specs)
        ]

        def draw() -> Iterator[Target]:
            yield from whole
            for keys in _chains(stages, rng):
                yield Target([(key, partial(blocks.run, key)) for key in keys], images)

        samples = measure(draw, protocol, stopwatch_for(device, threads), progress, rng)
    table = LatencyTable(
        kind='measured',
        device=name,
        backend='eager',
        dtype='float32',
        batch=batch,
        threads=threads,
        software=software(device),
        date=datetime.date.today().isoformat(),
        protocol=dict(
            timed='block by block, inside of random networks; convolutions and norms folded',
            clock=samples.clock,
            statistic='median',
            rounds=samples.rounds,
            seconds=round(samples.seconds, 1),
            **asdict(protocol),
        ),
        entries=[
            _entry(key, samples.timing(key))
            for key in dict.fromkeys(key for stage in stages for place in stage for key in place)
        ],
    )
    return _validated(table, specs, samples), samples


def _entry(key: BlockKey, timing: Timing) -> Entry:
    return Entry(
        **key._asdict(),
        latency_ms=round(timing.latency_ms, 6),
        iqr_ms=round(timing.iqr_ms, 6),
        samples=timing.samples,
    )


def _chains(stages: list[list[Place]], rng: random.Random) -> Iterator[list[BlockKey]]:
    """Random networks, about as few as can have every block."""
    decks: dict[Place, list[BlockKey]] = {}
    missing = {key for stage in stages for place in stage for key in place}

    def deal(place: Place) -> BlockKey:
        # Layers with equal blocks share a deck, so that all blocks come equally often.
        deck = decks.setdefault(place, [])
        if not deck:
            deck.extend(rng.sample(place, len(place)))
        return deck.pop()

    while missing:
        chain = [deal(place) for stage in stages for place in stage[: rng.randint(1, len(stage))]]
        missing.difference_update(chain)
        yield chain


def _validated(table: LatencyTable, specs: list[NetworkSpec], samples: Measurement) -> LatencyTable:
    """Fits overhead and scale on the first half of the networks, tests on the second."""
    half = len(specs) // 2
    if half == 0:
        return table
    measured_ms = np.array([samples.timing(index).latency_ms for index in range(len(specs))])
    predicted_ms = np.array([table.predict_ms(spec) for spec in specs])
    overhead_ms, scale = _fit(predicted_ms, measured_ms[:half])
    validation = Validation(
        fitted_on=half,
        predicted_ms=(overhead_ms + scale * predicted_ms[half:]).round(6).tolist(),
        measured_ms=measured_ms[half:].round(6).tolist(),
    )
    return table.model_copy(
        update=dict(network_overhead_ms=overhead_ms, network_scale=scale, validation=validation)
    )


def _fit(predicted_ms: np.ndarray, measured_ms: np.ndarray) -> tuple[float, float]:
    """Overhead in ms and scale: ridge regression of the relative error.

    Without evidence they are 0 and 1; `PRIOR` says how much it takes to move them, so that a few
    networks of about one size do not send them anywhere.

    Args:
        predicted_ms: (n,) sums over the blocks of n networks.
        measured_ms: (k,) latencies of the first k of them, on which the fit is done.
    """
    unit, ratio = np.median(measured_ms), predicted_ms[: len(measured_ms)] / measured_ms
    terms, error = np.stack([unit / measured_ms, ratio], axis=1), 1 - ratio
    shift = np.linalg.solve(terms.T @ terms + PRIOR * np.eye(2), terms.T @ error)
    overhead_ms, scale = np.round([unit * shift[0], 1 + shift[1]], 6).tolist()
    if scale <= 0 or (overhead_ms + scale * predicted_ms).min() <= 0:
        return 0.0, 1.0  # samples too disturbed to tell big networks from small ones
    return overhead_ms, scale


class _Pool(dict):
    """Blocks by key, built when first asked for, and built again where they do not all fit."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.bytes = device, 0

    def __missing__(self, key: BlockKey) -> nn.Module:
        block = build_deployed_block(key, self.device)
        size = sum(weight.nbytes for weight in block.parameters())
        if self.bytes + size > POOL_BYTES:
            self.clear()
            self.bytes = 0
        self.bytes += size
        self[key] = block
        return block

    def run(self, key: BlockKey, x: Tensor) -> Tensor:
        """The block's output for an input."""
        return self[key](x)
