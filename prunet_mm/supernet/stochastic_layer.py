"""A stochastic layer: candidate blocks that compete, and may all be skipped in the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunet_mm.models.blocks import NORM, build_block
from prunet_mm.spec import Candidate, Position
from prunet_mm.supernet.prunode import Prunode


class FixedBlock(nn.Module):
    """A candidate without a hidden width to search: a plain convolution.

    Args:
        position: Where the block stands.
        candidate: Its op and kernel.
        norm_cfg: Config of the norm layer.
    """

    def __init__(self, position: Position, candidate: Candidate, norm_cfg: dict = NORM) -> None:
        super().__init__()
        self.block = build_block(position.layer(candidate), norm_cfg)
        self.register_buffer('latency_ms', torch.zeros(1, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor, noisy: bool = False) -> Tensor:
        """Maps (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        return self.block(x)

    def expected_latency_ms(self) -> Tensor:
        """Return the latency in ms."""
        return self.latency_ms[0]


class StochasticLayer(nn.Module):
    """The candidates of one position, weighted by their probabilities.

    Output: k * sum of p_i * candidate_i(x) + (1 - k) * x, with p the softmax of the layer's
    logits. There is no skip at first: k, the keep coefficient, is 1 and out of the graph until
    ``skip_open`` is set, and a layer that changes width or stride has none.

    In training k is drawn: the layer is there with probability k, or it is not, and the gradient
    passes straight through to k. Weighing instead of drawing costs the loss nothing, since the
    last norm's scale grows as k falls: layers then settle half-way, where the network that is
    derived can not follow. Our reconstruction.

    Args:
        position: Where the layer stands and which candidates it holds.
        norm_cfg: Config of the norm layers.
        rule: Walking rule of the Prunodes.
    """

    def __init__(self, position: Position, norm_cfg: dict = NORM, rule: dict | None = None) -> None:
        super().__init__()
        self.position = position
        self.candidates = nn.ModuleDict(
            {
                c.name: Prunode(position, c, norm_cfg, rule)
                if c.widths
                else FixedBlock(position, c, norm_cfg)
                for c in position.candidates
            }
        )
        # One parameter a candidate: a removed one leaves its neighbours' optimiser state alone.
        self.logits = nn.ParameterDict({c: nn.Parameter(torch.zeros(())) for c in self.candidates})
        self.keep = nn.Parameter(torch.ones(())) if position.skippable else None
        self.skip_open = False
        self.temperature = 1.0
        self.sampling = 'softmax'
        self.deterministic = False  # for a test without noise in training mode

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        training = self.training and not self.deterministic
        noisy = training and self.sampling == 'gumbel'
        if len(self.candidates) == 1:
            (candidate,) = self.candidates.values()
            out = candidate(x, noisy)
        else:
            chances = self.probabilities(noisy)
            out = sum(chances[i] * c(x, noisy) for i, c in enumerate(self.candidates.values()))
        if self.keep is not None and self.skip_open:
            keep = self.keep
            if training:
                drawn = torch.bernoulli(keep.detach())
                keep = keep + (drawn - keep).detach()
            out = keep * out + (1 - keep) * x
        return out

    def probabilities(self, noisy: bool = False) -> Tensor:
        """Return the candidates' probabilities, (number of candidates,), in their order."""
        logits = torch.stack([self.logits[name] for name in self.candidates])
        if noisy:
            return F.gumbel_softmax(logits, self.temperature, dim=0)
        return (logits / self.temperature).softmax(0)

    def expected_latency_ms(self) -> Tensor:
        """Return k * sum of p_i * E[latency of candidate i], in ms, without noise."""
        costs = torch.stack([c.expected_latency_ms() for c in self.candidates.values()])
        cost = (self.probabilities() * costs).sum()
        return self.keep * cost if self.keep is not None and self.skip_open else cost

    def best(self) -> str:
        """Return the name of the most probable candidate (the first, where two tie)."""
        return list(self.candidates)[int(self.probabilities().argmax())]

    def prune_below(self, threshold: float) -> list[tuple[str, float]]:
        """Remove, for good, the candidates whose probability is below ``threshold``.

        The least probable one goes first; then the rest is renormalised and tested again, so the
        most probable one always stays (the first, where two tie).

        Returns:
            Name and probability of each removed candidate, in the order of removal.
        """
        removed = []
        while len(self.candidates) > 1:
            chances = dict(zip(self.candidates, self.probabilities().tolist(), strict=True))
            best = self.best()
            lowest = min((name for name in chances if name != best), key=chances.get)
            if chances[lowest] >= threshold:
                break
            self.remove(lowest)
            removed.append((lowest, chances[lowest]))
        return removed

    def remove(self, name: str) -> None:
        """Remove a candidate for good: its modules and its logit."""
        del self.candidates[name], self.logits[name]
