"""The latency budget: what is asked for, and whether the space has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.latency.limits import printed_limits

KEYS = ('budget_ms', 'budget_ratio', 'targets_ms')


@dataclass(frozen=True)
class Budget:
    """A latency in ms, and what the space allows around it.

    Attributes:
        budget_ms: The latency asked for; of several the lowest.
        smallest_ms: Predicted latency of the fastest network of the space.
        largest_ms: Predicted latency of the largest network of the space.
        targets_ms: All that is asked for, falling.
    """

    budget_ms: float
    smallest_ms: float
    largest_ms: float
    targets_ms: tuple[float, ...]

    @classmethod
    def resolve(
        cls,
        latency: dict,
        smallest_ms: float,
        largest_ms: float,
        table_kind: str = 'measured',
        origin_ms: float | None = None,
    ) -> Budget:
        """Read the budget from a config's ``latency`` and check it against the space.

        Args:
            latency: Has one of ``budget_ms``, ``budget_ratio``, a fraction of ``origin_ms`` or
                else of ``largest_ms``, and ``targets_ms``, several latencies that rise.
            smallest_ms: Latency of the fastest network of the space.
            largest_ms: Latency of the largest.
            table_kind: Of the table that both are from, 'measured' or 'estimated'.
            origin_ms: Latency of the network that the space is around.

        Raises:
            ConfigError: Not exactly one of the three is given, or the targets do not rise.
            SearchError: No network of the space meets the budget, or every one does.
        """
        given = {k: latency[k] for k in KEYS if latency.get(k) is not None}
        if len(given) != 1:
            raise ConfigError(
                f'model.latency needs exactly one of {", ".join(KEYS)}; found '
                f'{", ".join(f"{k}={value}" for k, value in given.items()) or "none"}.'
            )
        ((key, value),) = given.items()
        targets = _numbers(key, value)
        if key == 'budget_ratio':
            targets = [(origin_ms or largest_ms) * ratio for ratio in targets]
        for budget in targets:
            if not smallest_ms <= budget <= largest_ms:
                lowest, highest = printed_limits(smallest_ms, largest_ms)
                raise SearchError(
                    f'The budget of {budget:.6g} ms is infeasible: in this space, by the '
                    f'{table_kind} table, the smallest network takes {lowest} ms and the largest '
                    f'{highest} ms; choose --latency-target-ms between them.'
                )
        return cls(targets[0], smallest_ms, largest_ms, tuple(reversed(targets)))


def _numbers(key: str, value) -> list[float]:
    """The latencies or ratios of a setting, above 0 and rising."""
    values = list(value) if isinstance(value, (list, tuple)) and key == 'targets_ms' else [value]
    try:
        numbers = [float(one) for one in values]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ConfigError(
            f'model.latency.{key}: found {value!r}, expected '
            f'{"numbers" if key == "targets_ms" else "a number"} above 0.'
        )
    for lower, higher in pairwise(numbers):
        if lower >= higher or f'{lower:g}' == f'{higher:g}':  # files are named like this
            raise ConfigError(
                f'model.latency.targets_ms: found {higher:g} behind {lower:g}, expected latencies '
                'that rise, each once, in six digits.'
            )
    return numbers
