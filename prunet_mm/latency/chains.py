"""Which blocks of a space are timed, and the random networks in which they are."""

from __future__ import annotations

import random
from collections.abc import Iterator

from prunet_mm.spec import BlockKey, SearchSpace

Place = tuple[BlockKey, ...]


def places(space: SearchSpace) -> list[list[Place]]:
    """The blocks of a space, by stage and layer; stem and tail are stages of their own."""
    fixed = space.largest().block_keys()
    stages: list[list[Place]] = [[] for _ in space.stages]
    for position in space.positions():
        layers = (
            position.layer(candidate, hidden)
            for candidate in position.candidates
            for hidden in candidate.widths or (0,)
        )
        keys = tuple(layer.block_key(position.height, position.width) for layer in layers)
        stages[position.stage - 1].append(keys)
    stem = [[(key,)] for key in fixed[: len(space.stem_layers)]]
    return [*stem, *stages, [(fixed[-1],)]] if space.tail else [*stem, *stages]


def blocks(stages: list[list[Place]]) -> list[BlockKey]:
    """All blocks of such stages, each once."""
    return list(dict.fromkeys(key for stage in stages for place in stage for key in place))


def anchor_block(space: SearchSpace) -> BlockKey:
    """A block of medium size: with many more or far fewer MACs it would stand for few others."""
    layers = sorted(space.block_keys(), key=lambda key: (key.macs(), key.order))
    return layers[len(layers) // 2]


def random_chains(stages: list[list[Place]], rng: random.Random) -> Iterator[list[BlockKey]]:
    """Random networks, about as few as can have every block."""
    decks: dict[Place, list[BlockKey]] = {}
    missing = set(blocks(stages))

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
