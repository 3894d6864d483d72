"""What searching a hidden width costs: one Prunode with few widths, with many, and without it.

    python benchmarks/search_cost.py [--rounds 30] [--out benchmarks/results/search_cost.json]

Measured are the bytes that the backward pass keeps and the time of a step (forward and backward)
of one inverted residual block on a batch. The grid of widths is made finer, with the same widest
width, and longer, with the same granularity; the pair stays at the same ``hi``. The alternative
to a Prunode holds eight blocks of different width side by side and mixes them by a softmax.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from prunet_mm.engine.files import write_atomic
from prunet_mm.models.blocks import build_block
from prunet_mm.spec import Candidate, Position
from prunet_mm.supernet import Prunode
from prunet_mm.timing.device import device_name, keep_freed_memory, software
from prunet_mm.timing.engine import CpuStopwatch, Protocol, Stop, Target, measure
from prunet_mm.timing.samples import Measurement

BATCH, CHANNELS, SIZE, KERNEL = 32, 64, 28, 3
SEPARATE = 8
RESULT = Path(__file__).parent / 'results/search_cost.json'
BARS = dict(bytes=1.02, time=1.10, separate=3.0)


def position(widths: Sequence[int]) -> Position:
    """A residual layer whose only candidate has these hidden widths."""
    candidate = Candidate(f'irb_k{KERNEL}', 'irb', KERNEL, 'relu', 0, tuple(widths))
    return Position(1, 2, CHANNELS, CHANNELS, 1, SIZE, SIZE, (candidate,))


def prunode(widths: Sequence[int], hi: int) -> Prunode:
    """A Prunode on a grid of widths, half way between ``hi`` and its neighbour below."""
    at = position(widths)
    block = Prunode(at, at.candidates[0])
    block.rule.jump(hi - (widths[1] - widths[0]) / 2)
    assert block.pair()[1] == hi
    return block


class SeparateCandidates(nn.Module):
    """Blocks of different hidden widths on weights of their own, mixed by a softmax.

    Args:
        widths: Hidden width of each block.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        at = position(widths)
        layers = [at.layer(at.candidates[0], width) for width in widths]
        self.blocks = nn.ModuleList(map(build_block, layers))
        self.logits = nn.Parameter(torch.zeros(len(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        chances = self.logits.softmax(0)
        return sum(p * block(x) for p, block in zip(chances, self.blocks, strict=True))


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes that the backward pass keeps beside the module's own; each storage counts once."""
    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    kept = {}  # with the tensors, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def step(module: nn.Module):
    """Forward and backward, as a callable of the input."""

    def run(x: Tensor) -> Tensor:
        module.zero_grad(set_to_none=True)
        out = module(x)
        out.backward(torch.ones_like(out))
        return x

    return run


def main() -> None:
    """Measure, print a table, and write a record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    modules = {
        '4 widths to 512': prunode(range(128, 513, 128), hi=384),
        '128 widths to 512': prunode(range(4, 513, 4), hi=384),
        '4 widths to 128': prunode(range(32, 129, 32), hi=128),
        '128 widths to 4096': prunode(range(32, 4097, 32), hi=128),
        '8 separate blocks to 384': SeparateCandidates(range(48, 385, 48)),
    }
    # Requires a gradient, as the input of a layer inside a network does.
    inputs = [torch.randn(BATCH, CHANNELS, SIZE, SIZE, requires_grad=True) for _ in range(2)]
    stops = [
        Stop([name], lambda module=module: Target([step(module)], inputs))
        for name, module in modules.items()
    ]
    protocol = Protocol(passes=2, min_rounds=args.rounds, precision=1.0, max_seconds=600)
    stopwatch = CpuStopwatch(args.threads)
    result = Measurement(measure(lambda number: stops, protocol, stopwatch))
    rows = {
        name: dict(saved_bytes=saved_bytes(module, inputs[0]), **_timing(result.timing(name)))
        for name, module in modules.items()
    }
    ratios = {
        'finer grid': _ratio(rows, '128 widths to 512', '4 widths to 512'),
        'longer grid': _ratio(rows, '128 widths to 4096', '4 widths to 128'),
        'separate blocks': _ratio(rows, '8 separate blocks to 384', '128 widths to 512'),
    }
    _print(rows, ratios)
    record = dict(
        benchmark='search_cost',
        layer=dict(op='irb', kernel=KERNEL, batch=BATCH, channels=CHANNELS, size=SIZE),
        device=device_name('cpu'),
        threads=args.threads,
        software=software('cpu'),
        clock=stopwatch.name,
        rounds=result.rounds,
        results=rows,
        ratios=ratios,
        bars=BARS,
    )
    write_atomic(args.out, json.dumps(record, indent=2) + '\n')
    print(f'{result.rounds} rounds, {stopwatch.name}, {args.threads} thread(s); {args.out}')


def _timing(timing) -> dict[str, float]:
    return dict(step_ms=timing.latency_ms, iqr_ms=timing.iqr_ms, samples=timing.samples)


def _ratio(rows: dict, many: str, few: str) -> dict[str, float]:
    return dict(
        bytes=rows[many]['saved_bytes'] / rows[few]['saved_bytes'],
        time=rows[many]['step_ms'] / rows[few]['step_ms'],
    )


def _print(rows: dict, ratios: dict) -> None:
    print(f'{"":28}{"saved MiB":>12}{"step ms":>10}{"IQR ms":>10}')
    for name, row in rows.items():
        mib = row['saved_bytes'] / 2**20
        print(f'{name:28}{mib:12.2f}{row["step_ms"]:10.2f}{row["iqr_ms"]:10.2f}')
    print(f'\n{"ratio":28}{"bytes":>12}{"time":>10}')
    for name, ratio in ratios.items():
        print(f'{name:28}{ratio["bytes"]:12.3f}{ratio["time"]:10.3f}')


if __name__ == '__main__':
    main()
