"""Latencies that are printed to be typed back."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def printed_limits(smallest_ms: float, largest_ms: float) -> tuple[str, str]:
    """Both ends of a range of budgets, each rounded inwards: typed back, either is accepted.

    Four digits, or as many as it takes to keep the ends in order.
    """
    for digits in range(4, 17):
        lowest, highest = (
            float(Context(prec=digits, rounding=rounding).create_decimal(Decimal(end_ms)))
            for end_ms, rounding in ((smallest_ms, ROUND_CEILING), (largest_ms, ROUND_FLOOR))
        )
        if lowest <= highest:
            return f'{lowest:.{digits}g}', f'{highest:.{digits}g}'
    return repr(smallest_ms), repr(largest_ms)
