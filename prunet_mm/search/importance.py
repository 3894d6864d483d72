"""How much the loss feels each hidden channel, and channels in that order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from mmengine.dist import all_reduce_params, is_distributed
from torch import Tensor

from prunet_mm.errors import ConfigError
from prunet_mm.supernet import Prunode

if TYPE_CHECKING:
    from prunet_mm.search.model import ArchitectureSearch


@torch.enable_grad()
def taylor(model: ArchitectureSearch, batches: Sequence) -> dict[str, Tensor]:
    """The importance of hidden channels by a first-order Taylor expansion of the loss.

    A channel's gate stands in front of the projection: switched off, it takes the projection's
    column away, and the loss changes by the product of gate and gradient. Per batch, absolute,
    averaged; the fewer images are in a batch, the less of it they cancel. From *Importance
    Estimation for Neural Network Pruning* (arXiv 1906.10771).

    Args:
        model: Its SuperNet is judged as what is most probable, at its widest; nothing changes.
        batches: Of images; at least one.

    Returns:
        By layer, in units of the loss, (hidden,).

    Raises:
        ConfigError: There are no batches.
    """
    if not batches:
        raise ConfigError(
            'importance: Taylor importance takes images, at least one batch of them; without data '
            "channels are sorted by magnitude (importance='magnitude')"
        )
    supernet = model.supernet
    projections = {
        name: block.block.project.conv.weight
        for name, layer in supernet.layers().items()
        if isinstance(block := layer.candidates[layer.best()], Prunode)
    }
    training, sums = model.training, dict.fromkeys(projections, 0.0)
    model.eval()  # the statistics of the trained network
    try:
        for batch in batches:
            loss, _ = model.losses(batch)
            gradients = torch.autograd.grad(loss, list(projections.values()))
            for (name, weight), gradient in zip(projections.items(), gradients, strict=True):
                sums[name] = sums[name] + (weight.detach() * gradient).flatten(2).sum((0, 2)).abs()
    finally:
        model.train(training)
    return {name: total / len(batches) for name, total in sums.items()}


def sort_by_taylor(runner, count: int) -> None:
    """Sort the channels of a search's SuperNet by `taylor` on some of the architecture's images.

    Args:
        runner: Of the search, whose loop has the images.
        count: Images.

    Raises:
        ConfigError: There are none.
    """
    images = runner.train_loop.dataloader.probe('architecture', count, batch_size=1)
    importance = taylor(runner.model, images)
    if is_distributed():  # each rank has seen images of its own, and all have to agree
        all_reduce_params(list(importance.values()), op='mean')
    sort_channels(runner.model, importance)
    runner.logger.info(f'hidden channels are sorted by Taylor importance on {count} images')


@torch.no_grad()
def sort_channels(model: ArchitectureSearch, importance: dict[str, Tensor]) -> None:
    """Put hidden channels in falling order of importance, so that prefixes are the best to keep.

    No output changes. All candidates of a layer with as many channels are sorted alike: they
    started from one block, or from nothing.

    Args:
        model: Holds the SuperNet.
        importance: By layer, (hidden,).
    """
    for name, layer in model.supernet.layers().items():
        if name not in importance:
            continue
        order = importance[name].argsort(descending=True, stable=True)
        for candidate in layer.candidates.values():
            if isinstance(candidate, Prunode) and candidate.widths[-1] == len(order):
                for tensor, dim in candidate.hidden_tensors(statistics=True):
                    tensor.copy_(tensor.index_select(dim, order))
