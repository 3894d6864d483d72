"""The model compiled by ``torch.compile``."""

from __future__ import annotations

import os
import shutil
import types
from collections.abc import Callable, Sequence

from prunet_mm.errors import ConfigError
from prunet_mm.latency.backends.eager import Eager


class Inductor(Eager):
    """``torch.compile`` with its default backend and mode, for fixed shapes."""

    name = 'compile'

    @classmethod
    def require(cls, device: str, dtype: str = 'float32') -> None:
        super().require(device, dtype)
        compiler = os.environ.get('CXX', 'g++').split()[0]
        if shutil.which(compiler) is None:
            raise ConfigError(
                f'backend compile needs a C++ compiler, and there is no {compiler}: install one, '
                'or name it in the environment variable CXX'
            )

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        model = super().prepare(model, inputs, dtype)

        def run(x):
            return model(x)

        # Compiled code is kept per code object, eight versions at most, and searched from the
        # first on each call; models of one class would share them. So each gets its own.
        code = run.__code__.replace()
        own = types.FunctionType(code, run.__globals__, closure=run.__closure__)
        compiled = torch.compile(own, dynamic=False)
        compiled(inputs[0])
        return compiled
