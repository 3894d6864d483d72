"""A stochastic layer: candidate blocks that compete, and may all be skipped in the end."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunet_mm.models.blocks import NORM, build_block
from prunet_mm.spec import Candidate, Position
from prunet_mm.supernet.prunode import Prunode

SKIP = 'skip'  # the choice of no candidate


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

    With ``sampling='hard'`` the layer *is* one of its choices at a time: the candidate that
    ``path`` names, or none of them (``SKIP``). What is not chosen is not computed. Without a path
    it is what the network that would be derived now has.

    ``'softmax'`` and ``'gumbel'`` blend instead, as is usual: k * sum of p_i * candidate_i(x) +
    (1 - k) * x, with p the softmax of the layer's logits; they are there for comparison. In
    training k is drawn, and the gradient passes straight through to it. Of a path they only take
    whether the layer is skipped.

    There is no skip at first: k, the keep coefficient, is 1 until ``skip_open`` is set, and a
    layer that changes width or stride has none.

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
        self.stays = self.keep is None  # settled for good: it may not be skipped any more
        self.temperature = 1.0
        self.sampling = 'hard'
        self.path: str | None = None
        self.deterministic = False  # for a test without noise in training mode

    def forward(self, x: Tensor, path: str | None = None) -> Tensor:
        """Maps (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

        Args:
            x: The input.
            path: Overrules the attribute: a backward pass that computes activations again comes
                when another path may stand there.
        """
        path = path or self.path
        if self.sampling == 'hard':
            choice = path or self.likeliest()
            return x if choice == SKIP else self.candidates[choice](x)
        if path == SKIP:
            return x
        training = self.training and not self.deterministic
        noisy = training and self.sampling == 'gumbel'
        if len(self.candidates) == 1:
            (candidate,) = self.candidates.values()
            out = candidate(x, noisy)
        else:
            chances = self.probabilities(noisy)
            out = sum(chances[i] * c(x, noisy) for i, c in enumerate(self.candidates.values()))
        if self.skip_open and path is None:
            keep = self.keep
            if training:
                drawn = torch.bernoulli(keep.detach())
                keep = keep + (drawn - keep).detach()
            out = keep * out + (1 - keep) * x
        return out

    def options(self, closed: bool = False) -> list[str]:
        """Return the choices that are left: candidates, then the skip, if it is open.

        Args:
            closed: With the skip, too, where it is still to be opened.
        """
        skip = not self.stays and (self.skip_open or closed)
        return [*self.candidates, *([SKIP] if skip else [])]

    def close_skip(self) -> None:
        """Settle for good that this layer stays."""
        self.skip_open, self.stays = False, True
        if self.keep is not None:
            self.keep.data.fill_(1.0)

    def chances(self) -> dict[str, float]:
        """Return the probability of every option, in their order; the sum is 1."""
        keep = float(self.keep.detach()) if self.skip_open else 1.0
        probabilities = [keep * chance for chance in self.probabilities().detach().tolist()]
        return dict(zip(self.options(), [*probabilities, 1 - keep], strict=False))

    def likeliest(self) -> str:
        """Return the most probable choice (the first, where two tie)."""
        chances = self.chances()
        return max(chances, key=chances.get)

    def costs_ms(self) -> dict[str, float]:
        """Return the expected latency of every choice at its present widths, in ms."""
        costs = {
            name: float(candidate.expected_latency_ms().detach())
            for name, candidate in self.candidates.items()
        }
        return costs | ({SKIP: 0.0} if self.skip_open else {})

    def widest_ms(self) -> dict[str, float]:
        """Return the latency of every choice at its widest, in ms, the skip's among them."""
        costs = {name: float(block.latency_ms.max()) for name, block in self.candidates.items()}
        return costs if self.stays else costs | {SKIP: 0.0}

    def narrowest_ms(self) -> dict[str, float]:
        """Return the least latency of every option over its widths, in ms."""
        costs = {name: float(block.latency_ms.min()) for name, block in self.candidates.items()}
        return costs | ({SKIP: 0.0} if self.skip_open else {})

    @torch.no_grad()
    def believe(self, chances: dict[str, float]) -> None:
        """Set the probabilities of all choices; every one is above 0."""
        keep = 1 - chances.get(SKIP, 0.0)
        for name, logit in self.logits.items():
            logit.fill_(math.log(chances[name] / keep) * self.temperature)
        if SKIP in chances:
            self.keep.fill_(keep)

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
        return self.keep * cost if self.skip_open else cost

    def best(self) -> str:
        """Return the name of the most probable candidate (the first, where two tie)."""
        return list(self.candidates)[int(self.probabilities().argmax())]

    def prune_below(self, threshold: float, most_ms: float = math.inf) -> list[tuple[str, float]]:
        """Remove, for good, the candidates whose probability is below ``threshold``.

        The least probable one goes first; then the rest is renormalised and tested again, so the
        most probable one always stays (the first, where two tie).

        Args:
            threshold: A probability, given that the layer is there.
            most_ms: What the layer may cost, in ms; spare the last one that can be as cheap.

        Returns:
            Name and probability of each removed candidate, in the order of removal.
        """
        removed = []
        while len(self.candidates) > 1:
            chances = dict(zip(self.candidates, self.probabilities().tolist(), strict=True))
            best = self.best()
            able = [
                name
                for name in chances
                if name != best and self._least_ms(without=name) <= max(most_ms, self._least_ms())
            ]
            lowest = min(able, key=chances.get, default=best)
            if lowest == best or chances[lowest] >= threshold:
                break
            self.remove(lowest)
            removed.append((lowest, chances[lowest]))
        return removed

    def _least_ms(self, without: str | None = None) -> float:
        return min(cost for name, cost in self.narrowest_ms().items() if name != without)

    def remove(self, name: str) -> None:
        """Remove a candidate for good: its modules and its logit."""
        del self.candidates[name], self.logits[name]
