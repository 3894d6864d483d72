"""What the losses of sampled paths say about single choices: additive scores, with their doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Path = Mapping[str, str]


class PathScores(nn.Module):
    """Explains the loss of a path by a sum over its layers' choices; our reconstruction.

    Several paths are judged on the same images. What they have in common, the images above all,
    goes away with their mean; the rest is regressed on the choices in which they differ. The
    regression is Bayesian and keeps only sums, so that it costs nothing and survives a restart as
    two buffers. Old paths fade, since weights and widths move on.

    Args:
        choices: All that there will ever be, as ``(layer, choice)``.
        memory: Judgements (calls of :meth:`observe`) after which one counts 1/e.
        draws: How many draws of the posterior stand for it.
    """

    def __init__(
        self, choices: Sequence[tuple[str, str]], memory: int = 200, draws: int = 256
    ) -> None:
        super().__init__()
        self.columns = {choice: column for column, choice in enumerate(choices)}
        size = len(self.columns)
        self.decay = 1 - 1 / memory
        self.register_buffer('gram', torch.eye(size, dtype=torch.float64))
        self.register_buffer('moment', torch.zeros(size, dtype=torch.float64))
        # sum of squared deviations of the losses, and how many of them are free
        self.register_buffer('spread', torch.zeros(2, dtype=torch.float64))
        generator = torch.Generator().manual_seed(0)  # the same on all ranks, and after a restart
        noise = torch.randn(draws, size, dtype=torch.float64, generator=generator)
        self.register_buffer('noise', noise, persistent=False)

    @torch.no_grad()
    def observe(self, paths: Sequence[Path], losses: Tensor) -> None:
        """Learn from paths that were judged on the same images.

        Args:
            paths: At least two; the choice by layer.
            losses: Of each path, (number of paths,).
        """
        rows = torch.zeros(len(paths), len(self.columns), dtype=torch.float64)
        for row, path in zip(rows, paths, strict=True):
            for choice in path.items():
                row[self.columns[choice]] = 1
        rows = (rows - rows.mean(0)).to(self.gram.device)
        losses = losses.to(rows)
        losses = losses - losses.mean()
        free = len({tuple(path.items()) for path in paths}) - 1  # a path twice tells nothing new
        self.gram.mul_(self.decay).add_(rows.T @ rows)
        self.gram.diagonal().add_(1 - self.decay)  # the prior does not fade: it keeps this regular
        self.moment.mul_(self.decay).add_(rows.T @ losses)
        new = torch.stack([losses @ losses, losses.new_tensor(free)])
        self.spread.mul_(self.decay).add_(new)

    def mean(self) -> Tensor:
        """Return the expected scores: loss that each choice adds, up to a constant per layer."""
        return torch.linalg.solve(self.gram, self.moment)

    def noise_sd(self) -> float:
        """Return the standard deviation of what the sum over layers does not explain."""
        total, free = self.spread.tolist()
        layers = len({layer for layer, _ in self.columns})
        fitted = len(self.columns) - layers
        if free <= fitted:  # as much doubt as the losses themselves leave
            return (total / free) ** 0.5 if free else 1.0
        mean = self.mean()
        rest = total - float(mean @ (self.moment + mean))  # without what the prior takes off
        return (max(rest, 0.0) / (free - fitted) + 1e-12) ** 0.5

    def draws(self) -> Tensor:
        """Return draws of the scores from their posterior, (draws, choices)."""
        factor = torch.linalg.cholesky(self.gram)
        noise = torch.linalg.solve_triangular(factor.T, self.noise.T, upper=True).T
        return self.mean() + self.noise_sd() * noise

    def column(self, layer: str, choice: str) -> int:
        """Return the column of a choice in what the other methods return."""
        return self.columns[layer, choice]
