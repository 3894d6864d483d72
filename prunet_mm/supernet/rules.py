"""How a Prunode's pair of hidden widths walks: two rules behind one interface."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunet_mm.errors import ConfigError


class WalkingRule(nn.Module):
    """The state of one Prunode's walk over its grid of hidden widths.

    A rule answers one question, :meth:`pair`: which two hidden widths ``lo < hi`` is the block
    at, and how much weight ``r`` (0-d tensor, differentiable) does ``hi`` have?

    Args:
        widths: The grid, ascending and evenly spaced; at least two widths.
        initial: Expected hidden width at the start, as a fraction of the widest.
    """

    def __init__(self, widths: Sequence[int], initial: float) -> None:
        super().__init__()
        _check('initial', initial, 0 < initial <= 1, 'a fraction of the widest width, above 0')
        self.smallest, self.widest = widths[0], widths[-1]
        self.granularity = widths[1] - widths[0]
        self.start = min(max(initial * self.widest, self.smallest), self.widest)
        self.register_buffer('gap', torch.tensor(self.granularity))

    def pair(self, noisy: bool = False) -> tuple[int, int, Tensor]:
        """Return ``lo``, ``hi`` and the weight ``r`` of ``hi``.

        Args:
            noisy: Draw ``r`` instead of returning its expectation, where the rule has noise.
        """
        raise NotImplementedError

    def expected(self) -> Tensor:
        """Return the expected hidden width, E[w] = lo + r (hi - lo), as a 0-d tensor."""
        lo, hi, r = self.pair()
        return lo + r * (hi - lo)

    def set_gap(self, fraction: float) -> list[nn.Parameter]:
        """Set the distance of the pair to ``fraction`` of the widest width, keeping E[w].

        Returns:
            Parameters whose optimiser state is void.
        """
        raise NotImplementedError

    def walk(self) -> list[nn.Parameter]:
        """Act after an architecture step; return parameters whose optimiser state is void."""
        raise NotImplementedError

    def jump(self, width: float) -> None:
        """Put E[w] at ``width``."""
        raise NotImplementedError

    def _to_grid(self, distance: float) -> int:
        steps = max(1, round(distance / self.granularity))
        return min(steps * self.granularity, self.widest - self.smallest)


class WidthRule(WalkingRule):
    """A real-valued width between its two grid neighbours (our reconstruction, the default).

    The parameter is the width in units of the widest one, so one learning rate serves blocks of
    every size. Crossing a grid point changes neither E[w] nor, therefore, an E[latency] that is
    linear between grid points.
    """

    def __init__(self, widths: Sequence[int], initial: float = 1.0) -> None:
        super().__init__(widths, initial)
        self.width = nn.Parameter(torch.tensor(self.start / self.widest))

    def pair(self, noisy: bool = False) -> tuple[int, int, Tensor]:
        width = self.width * self.widest
        gap = int(self.gap)
        cell = int((float(width.detach()) - self.smallest) // gap)
        last_cell = (self.widest - self.smallest - 1) // gap
        lo = self.smallest + gap * min(max(cell, 0), last_cell)
        hi = min(lo + gap, self.widest)
        return lo, hi, (width - lo) / (hi - lo)

    def set_gap(self, fraction: float) -> list[nn.Parameter]:
        self.gap.fill_(self._to_grid(fraction * self.widest))
        return []

    @torch.no_grad()
    def walk(self) -> list[nn.Parameter]:
        self.width.clamp_(self.smallest / self.widest, 1.0)
        return []

    @torch.no_grad()
    def jump(self, width: float) -> None:
        self.width.fill_(width / self.widest)
        self.walk()


class LogitsRule(WalkingRule):
    """Two logits; the pair moves when their smoothed softmax leans (our reconstruction).

    It is the reading that stays nearest to the published description of the Prunode
    (arXiv 2209.11785): two masks, a probability each, moved towards the likelier one.
    After a move logits, smoothing and optimiser state start afresh, or all layers wind up.
    Where E[w] is put at a width, a constant on top of the logits does it: they start at zero, so
    that the next move is decided by what is learned from there on and by nothing else.

    Args:
        widths: See :class:`WalkingRule`.
        initial: See :class:`WalkingRule`.
        interval: Architecture steps between two decisions.
        margin: Lean of the smoothed probability (from 0.5) that triggers a move.
        smoothing: Decay of the exponential moving average of the probability.
    """

    def __init__(
        self,
        widths: Sequence[int],
        initial: float = 1.0,
        interval: int = 6,
        margin: float = 0.1,
        smoothing: float = 0.8,
    ) -> None:
        super().__init__(widths, initial)
        _check('interval', interval, interval >= 1, 'at least 1')
        _check('margin', margin, 0 <= margin < 0.5, '0 or more, below 0.5')
        _check('smoothing', smoothing, 0 <= smoothing < 1, '0 or more, below 1')
        self.interval, self.margin, self.smoothing = interval, margin, smoothing
        self.temperature = 1.0
        self.logits = nn.Parameter(torch.zeros(2))
        self.register_buffer('lo', torch.tensor(self.smallest))
        self.register_buffer('offset', torch.tensor(0.0))
        self.register_buffer('smoothed', torch.tensor(0.5))
        self.register_buffer('steps', torch.tensor(0))
        self.jump(self.start)

    def pair(self, noisy: bool = False) -> tuple[int, int, Tensor]:
        preference = self._preference()
        if noisy:  # the difference of two Gumbel variables is logistic
            preference = preference + torch.rand_like(preference).logit(1e-6) / self.temperature
        lo = int(self.lo)
        return lo, min(lo + int(self.gap), self.widest), (preference + self.offset).sigmoid()

    def set_gap(self, fraction: float) -> list[nn.Parameter]:
        gap = self._to_grid(fraction * self.widest)
        if gap == int(self.gap):
            return []
        width = float(self.expected().detach())
        self.gap.fill_(gap)
        self.jump(width)
        return [self.logits]

    @torch.no_grad()
    def walk(self) -> list[nn.Parameter]:
        chance = float(self._preference().sigmoid())
        self.smoothed.mul_(self.smoothing).add_((1 - self.smoothing) * chance)
        self.steps += 1
        lean = float(self.smoothed) - 0.5
        if int(self.steps) % self.interval or abs(lean) <= self.margin:
            return []
        lo = self._bounded(int(self.lo) + (1 if lean > 0 else -1) * int(self.gap))
        if lo == int(self.lo):
            return []
        self.lo.fill_(lo)
        self._reset()
        return [self.logits]

    @torch.no_grad()
    def jump(self, width: float) -> None:
        gap = int(self.gap)
        below = (width - gap / 2 - self.smallest) / self.granularity
        self.lo.fill_(self._bounded(self.smallest + round(below) * self.granularity))
        self._reset()
        share = (width - int(self.lo)) / gap
        self.offset.fill_(share).logit_(1e-3)

    def _preference(self) -> Tensor:
        """What was learned since the last start: log-odds of ``hi``, at the temperature."""
        return (self.logits[1] - self.logits[0]) / self.temperature

    def _bounded(self, lo: int) -> int:
        return min(max(lo, self.smallest), self.widest - int(self.gap))

    def _reset(self) -> None:
        self.logits.zero_()
        self.offset.zero_()
        self.smoothed.fill_(0.5)
        self.steps.zero_()


RULES = {'width': WidthRule, 'logits': LogitsRule}


def build_rule(widths: Sequence[int], config: dict) -> WalkingRule:
    """Build the walking rule of one Prunode.

    Args:
        widths: Its grid of hidden widths; at least two.
        config: ``type``, a key of ``RULES``, and options of that rule.

    Raises:
        ConfigError: An unknown rule or option, or an impossible value.
    """
    options = dict(config)
    kind = options.pop('type', None)
    if kind not in RULES:
        raise ConfigError(
            f'backbone.rule.type: found {kind!r}, expected one of {", ".join(RULES)}.'
        )
    known = list(inspect.signature(RULES[kind]).parameters)[1:]
    if unknown := set(options) - set(known):
        raise ConfigError(
            f'backbone.rule: found {", ".join(sorted(unknown))}, expected no more than '
            f'{", ".join(known)} for type {kind!r}.'
        )
    return RULES[kind](widths, **options)


def _check(name: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f'backbone.rule.{name}: found {value!r}, expected {expected}.')
