"""Backends that need nothing but torch."""

from __future__ import annotations

import copy
import os
import shutil
import types
import warnings
from collections.abc import Callable, Sequence

from prunet_mm.errors import ConfigError
from prunet_mm.timing.backends.base import Backend

WARM_UP = 3  # calls before a graph is recorded


class Eager(Backend):
    """The model as it is, run operation by operation."""

    name = 'eager'

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        return copy.deepcopy(model).to(self.device, dtype)


class ChannelsLast(Eager):
    """Eager on weights and images whose channels lie next to each other in memory (NHWC)."""

    name = 'channels-last'

    def convert(self, x, dtype):
        import torch

        x = super().convert(x, dtype)
        return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        return super().prepare(model, inputs, dtype).to(memory_format=torch.channels_last)


class TorchScript(Eager):
    """``torch.jit.trace``, ``freeze`` and ``optimize_for_inference``."""

    name = 'torchscript'

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        model = super().prepare(model, inputs, dtype)
        with warnings.catch_warnings(), torch.no_grad():
            # Of Python branches on shapes, which are fixed here, and of torch's plans for it.
            warnings.simplefilter('ignore')
            traced = torch.jit.trace(model, inputs[0], check_trace=False)
            return torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))


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


class CudaGraph(Eager):
    """The eager model's kernels, recorded once and launched together."""

    name = 'cuda-graph'
    devices = ('cuda',)

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        return captured(super().prepare(model, inputs, dtype), inputs[0].clone())


def captured(call: Callable, x) -> Callable:
    """A CUDA graph of a call.

    The input is copied to where the graph reads it, which is part of the time, as it is where such
    a graph is deployed. The output is overwritten by the next call.

    Args:
        call: Works on the current stream, and always on the same memory.
        x: Where the graph reads its input; belongs to it from now on.
    """
    import torch

    with torch.cuda.device(x.device):
        # The first calls pick algorithms and allocate, on a stream of their own as it is asked for
        # (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                call(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = call(x)

    def run(image):
        x.copy_(image)
        graph.replay()
        return y

    run.call = call  # what it runs on lives as long as the graph does
    return run
