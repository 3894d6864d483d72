"""The Prunode: a block that searches its hidden width with two paths on shared weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from prunet_mm.models.blocks import NORM, build_block, padded
from prunet_mm.spec import Candidate, Position
from prunet_mm.supernet.rules import build_rule


class Prunode(nn.Module):
    """An inverted residual block whose hidden width is searched (arXiv 2209.11785, tier 1).

    The block is at two hidden widths ``lo < hi`` at once, weighted 1 - r and r. Path ``lo`` is
    path ``hi`` without its last channels, and all between expansion and projection acts on each
    channel alone. So the projection is linear in a per-channel weight ``m`` (1 below ``lo``,
    ``r`` from there to ``hi``), and one pass at width ``hi`` equals both paths: cost and memory
    are those of one candidate, however many widths the grid has. ``m`` is folded into the
    projection's weight, which saves an activation. Only squeeze-and-excitation mixes channels;
    its gates are computed for both paths, from the same pooled vector, at the cost of two small
    matrix products.

    Args:
        position: Where the block stands.
        candidate: Its op, kernel and grid of hidden widths.
        norm_cfg: Config of the norm layers; type BN.
        rule: Walking rule and its options, ``dict(type='width' | 'logits', initial=1.0, ...)``.
    """

    def __init__(
        self,
        position: Position,
        candidate: Candidate,
        norm_cfg: dict = NORM,
        rule: dict | None = None,
    ) -> None:
        super().__init__()
        self.widths = candidate.widths
        self.block = build_block(position.layer(candidate, self.widths[-1]), norm_cfg)
        rule = rule or dict(type='width')
        self.rule = build_rule(self.widths, rule) if len(self.widths) > 1 else None
        self.fixed_width: int | None = None
        self.register_buffer(
            'latency_ms', torch.zeros(len(self.widths), dtype=torch.float64), persistent=False
        )

    def forward(self, x: Tensor, noisy: bool = False) -> Tensor:
        """Maps (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        lo, hi, r = self.pair(noisy)
        h = _sliced(self.block.expand, x, hi)
        if hasattr(self.block, 'depthwise'):
            h = _sliced(self.block.depthwise, h, hi, depthwise=True)
        project = self.block.project
        weight = project.conv.weight[:, :hi]
        if self.block.se is not None:
            h = h * self._gain(h, lo, hi, r)
        elif lo < hi:
            weight = weight * torch.cat([r.new_ones(lo), r.expand(hi - lo)]).view(1, -1, 1, 1)
        out = project.bn(F.conv2d(h, weight))
        if project.with_activation:
            out = project.activate(out)
        return x + out if self.block.residual else out

    def pair(self, noisy: bool = False) -> tuple[int, int, Tensor | None]:
        """Return ``lo``, ``hi`` and the weight r of ``hi``; equal widths and None if fixed."""
        if self.fixed_width is not None:
            return self.fixed_width, self.fixed_width, None
        if self.rule is None:
            return self.widths[0], self.widths[0], None
        return self.rule.pair(noisy)

    def expected_width(self) -> float:
        """Return E[w], the expected hidden width, as a number."""
        lo, hi, r = self.pair()
        return float(lo) if r is None else lo + float(r.detach()) * (hi - lo)

    def nearest_width(self) -> int:
        """Return the hidden width of the grid that is nearest to E[w]."""
        width = self.expected_width()
        return min(self.widths, key=lambda grid: (abs(grid - width), grid))

    def expected_latency_ms(self) -> Tensor:
        """Return the expected latency in ms, linear in r between the two widths' entries."""
        lo, hi, r = self.pair()
        low, high = (self.latency_ms[self.widths.index(width)] for width in (lo, hi))
        return low if r is None else low + r * (high - low)

    def hidden_tensors(self, statistics: bool = False) -> Iterator[tuple[Tensor, int]]:
        """Yield every parameter that has hidden channels, and the dimension they are in.

        Args:
            statistics: The norms' running ones, too.
        """
        block = self.block
        for part in filter(None, (block.expand, getattr(block, 'depthwise', None))):
            yield part.conv.weight, 0
            yield part.bn.weight, 0
            yield part.bn.bias, 0
            if statistics:
                yield part.bn.running_mean, 0
                yield part.bn.running_var, 0
        yield block.project.conv.weight, 1
        if block.se is not None:
            yield block.se.reduce.weight, 1
            yield block.se.expand.weight, 0
            yield block.se.expand.bias, 0

    def _gain(self, h: Tensor, lo: int, hi: int, r: Tensor | None) -> Tensor:
        """The factor (N, hi, 1, 1) that equals both paths' gates, each mixed in with its weight."""
        pooled = h.mean((2, 3), keepdim=True)
        high = self._gate(pooled, hi)
        if lo == hi:
            return high
        low = F.pad(self._gate(pooled, lo), (0, 0, 0, 0, 0, hi - lo))
        return (1 - r) * low + r * high

    def _gate(self, pooled: Tensor, width: int) -> Tensor:
        se = self.block.se
        squeezed = F.conv2d(pooled[:, :width], se.reduce.weight[:, :width], se.reduce.bias)
        raised = F.conv2d(se.act(squeezed), se.expand.weight[:width], se.expand.bias[:width])
        return se.gate(raised)


def _sliced(module: ConvModule, x: Tensor, width: int, depthwise: bool = False) -> Tensor:
    """Run conv, BN and activation with the first ``width`` output channels only."""
    conv, bn = module.conv, module.bn
    momentum = bn.momentum or 0.0
    x = F.conv2d(
        padded(conv, x),
        conv.weight[:width],
        stride=conv.stride,
        padding=conv.padding,
        groups=width if depthwise else 1,
    )
    if bn.training and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
        if bn.momentum is None:  # the plain average, as for any other norm
            momentum = 1 / int(bn.num_batches_tracked)
    x = F.batch_norm(
        x,
        bn.running_mean[:width],
        bn.running_var[:width],
        bn.weight[:width],
        bn.bias[:width],
        bn.training,
        momentum,
        bn.eps,
    )
    return module.activate(x)
