"""A value that moves with the progress of the search."""

from __future__ import annotations

from dataclasses import dataclass

from prunet_mm.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """From ``start`` to ``end`` between two points of the architecture phase.

    Args:
        start: Value up to ``begin``.
        end: Value from ``finish`` on.
        begin: Fraction of the architecture phase (0 = end of the warm-up, 1 = last step).
        finish: The same.
        shape: ``'linear'`` or ``'exponential'`` (equal ratios in equal times).
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0
    shape: str = 'linear'

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish <= 1:
            raise ConfigError(
                f'A schedule runs from begin={self.begin} to finish={self.finish}; expected '
                '0 <= begin < finish <= 1.'
            )
        if self.shape not in ('linear', 'exponential'):
            raise ConfigError(
                f'A schedule has shape {self.shape!r}; expected linear or exponential.'
            )
        if self.shape == 'exponential' and min(self.start, self.end) <= 0:
            raise ConfigError(
                f'An exponential schedule from {self.start} to {self.end} needs positive values.'
            )

    @classmethod
    def build(cls, config: Schedule | dict) -> Schedule:
        """Build one from a config's plain dict.

        Raises:
            ConfigError: An unknown key or an impossible value.
        """
        if isinstance(config, cls):
            return config
        try:
            return cls(**config)
        except TypeError:
            known = ', '.join(cls.__dataclass_fields__)
            raise ConfigError(
                f'A schedule is given as {config}; expected a dict of start and end, '
                f'and at most these keys: {known}.'
            ) from None

    def __call__(self, progress: float) -> float:
        """Return the value at a fraction of the architecture phase."""
        done = (progress - self.begin) / (self.finish - self.begin)
        done = min(max(done, 0.0), 1.0)
        if self.shape == 'linear':
            return self.start + done * (self.end - self.start)
        return self.start * (self.end / self.start) ** done
