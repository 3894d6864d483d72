"""Where and how models run: the same few settings wherever something is timed."""

from __future__ import annotations

from dataclasses import dataclass

from prunet_mm.errors import ConfigError
from prunet_mm.timing.backends import find_backend
from prunet_mm.timing.device import cores, require_device

DTYPES = 'float32', 'float16', 'bfloat16'


@dataclass(frozen=True)
class Settings:
    """What a latency means nothing without.

    Attributes:
        device: 'cpu', 'cuda' or 'cuda:N'.
        backend: A key of `BACKENDS`.
        dtype: What is computed in, one of `DTYPES`.
        batch: Images per pass.
        threads: CPU threads.

    Raises:
        ConfigError: Batch or threads are no whole number above 0, or there is no such type.
    """

    device: str = 'cpu'
    backend: str = 'eager'
    dtype: str = 'float32'
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ('batch', 'threads'):
            require_number(name, getattr(self, name), int)
        if self.dtype not in DTYPES:
            raise ConfigError(f'latency.dtype is {self.dtype!r}: choose {", ".join(DTYPES)}')

    def require(self) -> None:
        """Refuses what this machine cannot do.

        Raises:
            ConfigError: Device or backend are not here, do not fit together, or there are fewer
                cores than threads, which would wait for each other.
        """
        require_device(self.device)
        find_backend(self.backend).require(self.device, self.dtype)
        if self.device == 'cpu' and self.threads > cores():
            raise ConfigError(
                f'{self.threads} threads on {cores()} core{"s"[: cores() - 1]} that this process '
                'may use (of affinity and control group, too) would wait for each other: choose '
                f'--threads {cores()} or fewer'
            )

    @property
    def words(self) -> str:
        """All but the device, for people."""
        threads = f'{self.threads} thread{"s"[: self.threads - 1]}'
        return f'{self.backend}, {self.dtype}, batch {self.batch}, {threads}'


def require_number(name: str, value: object, kind: type) -> None:
    """Raises a `ConfigError` unless a setting is a number, or a whole one, above 0."""
    kinds = (int,) if kind is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not value > 0:
        whole = 'whole ' if kind is int else ''
        raise ConfigError(f'latency.{name} is {value!r}: expected a {whole}number above 0')
