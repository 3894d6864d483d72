"""The model's kernels recorded once and launched together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunet_mm.latency.backends.eager import Eager

WARM_UP = 3


class CudaGraph(Eager):
    """A CUDA graph of the eager model."""

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
