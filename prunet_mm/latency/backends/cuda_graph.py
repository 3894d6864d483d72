"""The model's kernels recorded once and launched together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunet_mm.latency.backends.eager import Eager

WARM_UP = 3


class CudaGraph(Eager):
    """A CUDA graph of the eager model.

    The input is copied to where the graph reads it, which is part of the time, as it is where such
    a graph is deployed. The output is overwritten by the next call.
    """

    name = 'cuda-graph'
    devices = ('cuda',)

    def prepare(self, model, inputs: Sequence, dtype) -> Callable:
        import torch

        model, static = super().prepare(model, inputs, dtype), inputs[0].clone()
        with torch.cuda.device(static.device):
            # cuDNN picks its algorithms, and allocates, in the first calls: on another stream than
            # the default one, which cannot be captured.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    model(static)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = model(static)

        def run(x):
            static.copy_(x)
            graph.replay()
            return y

        return run
