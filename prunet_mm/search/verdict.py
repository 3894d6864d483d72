"""Whether a search has had a price of latency to decide by."""

from __future__ import annotations

from collections.abc import Sequence

from prunet_mm.search.steadiness import MEMORY, STEADY_FLOOR

FALLING = 0.05  # share by which a loss that still falls is lower than a fifth of the search before


def verdict(history: Sequence[dict]) -> str:
    """Say in a sentence whether the budget binds, by the end of a history.

    A price that is zero or negative is none: the budget is filled with what the loss does not
    want. Either there is nothing more to gain, or the weights have learnt too little to feel what
    they lack. Where the task loss still falls steeply, it is the latter.

    Args:
        history: Rows of a ``history.jsonl``, at least one.
    """
    last = history[-MEMORY:]
    price = sum(row['multiplier'] for row in last) / len(last)
    if price > STEADY_FLOOR:
        return (
            f'The budget binds: lambda ended at {price:.3f}, so 1 % of latency is worth '
            f'{price / 100:.4f} of the loss.'
        )
    fifth = max(len(history) // 5, 1)
    parts = history[-2 * fifth : -fifth] or last, history[-fifth:]
    before, now = (sum(row['loss'] for row in rows) / len(rows) for rows in parts)
    none = f'Latency has no price: lambda ended at {price:.3f}, so more of it would not have helped'
    if now < (1 - FALLING) * before:
        return (
            f'{none}, but the task loss still falls, from {before:.3f} to {now:.3f} in the last '
            'fifth of the search: the weights have learnt too little to tell what they lack. Do '
            'not read a quality into the choices; search longer, or from trained weights.'
        )
    return (
        f'{none}, and the task loss does not fall any more ({before:.3f} to {now:.3f} in the last '
        'fifth): the budget does not bind. A smaller one would serve as well.'
    )
