"""Candidates that a trained network has no weights for learn to do what its layers do."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from mmengine.dist import all_reduce_params, is_distributed
from torch import Tensor, nn

from prunet_mm.errors import SearchError
from prunet_mm.models.recompute import frozen_statistics
from prunet_mm.models.unexplained import unexplained
from prunet_mm.search.gradients import average_gradients
from prunet_mm.supernet import Prunode, SuperNet
from prunet_mm.supernet.paths import at_widths
from prunet_mm.supernet.trained import alike
from prunet_mm.supernet.unused_channels import UnusedChannels

if TYPE_CHECKING:
    from prunet_mm.search.model import ArchitectureSearch

RATE = 0.003  # of Adam, from where it falls to 0 along a cosine
JUDGED = 2  # batches on which it is measured what remains
LATELY = 10  # steps whose mean the screen shows

Pair = tuple[str, str]  # a layer and one of its candidates


def imitate(runner) -> None:
    """Have a search's imitating candidates learn, and tell what each leaves unexplained.

    The images are those of the weights. They come from a stream of its own, so an imitation that
    was interrupted, of which no checkpoint is left, begins anew with the same ones and ends in the
    same weights. What remains is measured on images of the architecture's part.

    Args:
        runner: Of a search whose SuperNet starts as a trained network.

    Raises:
        SearchError: It diverges.
    """
    model, data = runner.model, runner.train_loop.dataloader
    names, steps = list(imitators(model.supernet)), model.supernet.imitation
    if not names:
        return
    runner.logger.info(f'imitation: {len(names)} candidates learn to do what trained layers do')
    course = []
    with closing(data.stream('weights', 0)) as batches:
        for share in learn(model, batches, steps, runner.seed):
            course.append(share)
            if runner.screen:
                _show(runner.screen, len(course), steps, fmean(course[-LATELY:]))
    left = remaining(model, data.probe('architecture', JUDGED))
    for (layer, candidate), share in left.items():
        event = dict(kind='imitation', layer=layer, candidate=candidate, unexplained=share)
        runner.train_loop.record(event)
    quarters = [course[at * steps // 4 : (at + 1) * steps // 4] for at in range(4)]
    means = [f'{fmean(quarter):.1%}' for quarter in quarters if quarter]
    rows = ''.join(
        f'\n{layer:14}  {name:13}  {share:6.1%}' for (layer, name), share in left.items()
    )
    runner.logger.info(
        f'imitation: quarter by quarter of {steps} steps, {", ".join(means)} of what the layers do '
        'was left unexplained, on average; at their widest, on images of the architecture, the '
        f'candidates leave{rows}'
    )


def imitators(supernet: SuperNet) -> dict[Pair, nn.Module]:
    """The candidates that do not start as the trained layer: of another kind or smaller kernel."""
    found = {}
    for name, layer in supernet.layers().items():
        kinds = {one.name: one for one in layer.position.candidates}
        own = kinds[layer.best()]
        for option, block in layer.candidates.items():
            if not alike(kinds[option], own) or kinds[option].kernel < own.kernel:
                found[name, option] = block
    return found


def learn(
    model: ArchitectureSearch, batches: Iterator, steps: int, seed: int = 0
) -> Iterator[float]:
    """Train the imitating candidates of all layers, each on its trained layer's input and output.

    One pass of the trained network, which stays as it is, serves all of them, and no label is
    needed: LANA's pretraining (arXiv 2107.10624). Every other step has a candidate at its widest,
    which is where a search begins; between, at a width drawn from its grid, so that its first
    channels are the best to keep. The widths and Adam are ours.

    Args:
        model: Its SuperNet has just started as a trained network.
        batches: Of images.
        steps: How many of them to learn from.
        seed: Of the widths, the same in all processes.

    Yields:
        After each step the share that was left unexplained, mean over candidates.
    """
    blocks = imitators(model.supernet)
    prunodes = [block for block in blocks.values() if isinstance(block, Prunode)]
    parameters = [
        p for block in blocks.values() for p in block.block.parameters() if p.requires_grad
    ]
    optimizer = torch.optim.Adam(parameters, RATE)
    UnusedChannels(lambda: prunodes, optimizer)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = random.Random(f'{seed} imitation')
    for step in range(steps):
        widths = {
            one: rng.choice(one.widths) if (step + at) % 2 else one.widths[-1]
            for at, one in enumerate(prunodes)
        }
        with at_widths(widths):
            shares = []
            for share in _shares(model, blocks, next(batches)):
                share.backward()
                shares.append(share.detach())
            if is_distributed():
                average_gradients(parameters)
            optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        yield float(_agreed(torch.stack(shares)).mean())


@torch.no_grad()
def remaining(model: ArchitectureSearch, batches: Sequence) -> dict[Pair, float]:
    """What share of its layer's output each imitating candidate leaves unexplained, at its widest.

    Args:
        model: Nothing of it changes.
        batches: Of images; at least one.

    Raises:
        SearchError: It is no number.
    """
    blocks = imitators(model.supernet)
    widest = {one: one.widths[-1] for one in blocks.values() if isinstance(one, Prunode)}
    with frozen_statistics(model), at_widths(widest):
        each = [torch.stack(list(_shares(model, blocks, batch))).double() for batch in batches]
    shares = _agreed(torch.stack(each).mean(0)).tolist()
    for (layer, candidate), share in zip(blocks, shares, strict=True):
        if not math.isfinite(share):
            raise SearchError(f'Imitation diverges: of {layer}, {candidate} leaves {share}.')
    return dict(zip(blocks, shares, strict=True))


def _shares(model: ArchitectureSearch, blocks: Mapping[Pair, nn.Module], batch) -> Iterator[Tensor]:
    """Run the trained network on a batch, and give what each candidate leaves unexplained, 0-d.

    One after the other, so that no more than one candidate's activations are in memory.
    """
    supernet = model.supernet
    images = model.data_preprocessor(batch, True)['inputs']
    with _as_trained(model, blocks.values()):
        with torch.no_grad():
            x = supernet.stem(images.contiguous(memory_format=torch.channels_last))
        for name, layer in supernet.layers().items():
            own = layer.candidates[layer.best()]
            with torch.no_grad():
                wanted = own(x)
            for (place, _), block in blocks.items():
                if place == name:
                    passed = x if own.block.residual else None  # is no work of the layer
                    yield unexplained(block(x), wanted, passed)
            x = wanted


@contextmanager
def _as_trained(model: ArchitectureSearch, blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Have the network's own statistics in its norms, and the batch's in those of some blocks."""
    training = model.training
    model.eval()
    for block in blocks:
        block.train()
    try:
        yield
    finally:
        model.train(training)


def _agreed(shares: Tensor) -> Tensor:
    """The mean over all processes."""
    if is_distributed():
        all_reduce_params([shares], op='mean')
    return shares


def _show(screen, done: int, steps: int, share: float) -> None:
    screen.progress(
        'imitating', done / steps, lambda: (f'imitating {done}/{steps}', f'{share:.1%} unexplained')
    )
