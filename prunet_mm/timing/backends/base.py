"""What a backend is: something that makes a callable of a model, to be timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from prunet_mm.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Backend:
    """One way to run a model.

    Modules of this package import torch and what else they need where they use it, so that a
    command line can list them all at once.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.
        threads: CPU threads, for those that do not take torch's.

    Attributes:
        name: What the command line calls it.
        packages: Modules it imports beside torch, as pip calls them.
        devices: Kinds of device it runs on.
        dtypes: Types it computes in.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ('cpu', 'cuda')
    dtypes: ClassVar[tuple[str, ...]] = ('float32', 'float16', 'bfloat16')

    def __init__(self, device: str = 'cpu', threads: int = 1) -> None:
        self.device = device
        self.threads = threads

    @classmethod
    def require(cls, device: str, dtype: str = 'float32') -> None:
        """Refuses what cannot be on this machine.

        Raises:
            ConfigError: It does not run on such a device or in this type, or a package is not
                installed: names it, and the command that installs it.
        """
        if device.partition(':')[0] not in cls.devices:
            raise ConfigError(
                f'backend {cls.name} runs on {" or ".join(cls.devices)}, not on {device}'
            )
        if dtype not in cls.dtypes:
            raise ConfigError(
                f'backend {cls.name} computes in {" or ".join(cls.dtypes)}: no {dtype}'
            )
        for package in cls.packages:
            if find_spec(package) is None:
                raise ConfigError(
                    f'backend {cls.name} needs {package}, which is not installed: '
                    f'pip install {package}'
                )

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Versions of the packages, by name."""
        return {package: import_module(package).__version__ for package in cls.packages}

    def convert(self, x: Tensor, dtype: torch.dtype) -> Any:
        """Makes what `prepare`'s callable takes of a float32 tensor.

        Done once per input, before anything is timed.
        """
        return x.to(self.device, dtype)

    def prepare(
        self, model: nn.Module, inputs: Sequence[Any], dtype: torch.dtype
    ) -> Callable[[Any], Any]:
        """Makes what is timed of a model.

        Args:
            model: A module of float32 weights in eval mode, which stays as it is.
            inputs: What it will be called with, in the form that `convert` gives: all of one shape.
            dtype: What to compute in.

        Returns:
            A callable that maps such an input to what the model returns, in tensors that the next
            callable of a chain takes in turn.
        """
        raise NotImplementedError
