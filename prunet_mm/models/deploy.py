"""Networks for inference: BatchNorms folded into the convolutions in front of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from mmcv.cnn import Conv2d, ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from prunet_mm.errors import ConfigError

_CONVS = (nn.Conv2d, Conv2d, Conv2dAdaptivePadding)
_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def fold_norms(module: nn.Module) -> nn.Module:
    """Folds every BatchNorm that directly follows a convolution into it, in place.

    The outputs in evaluation mode stay the same up to rounding. What cannot be folded (a norm in
    front of its convolution, GroupNorm, a convolution that changes its weights by itself) stays as
    it is. Folding again changes nothing.

    Args:
        module: Any module; a block that is used in several places is folded once.

    Returns:
        The same module, in evaluation mode. It cannot be trained any more as it was before: the
        norms are gone, and so is what an optimizer knew of the convolutions.

    Raises:
        ConfigError: A convolution or BatchNorm that had to be folded is used elsewhere, too, where
            it would do something else from then on. Nothing is folded.
    """
    module.eval()
    pairs = list(_pairs(module))
    _refuse_shared(module, pairs)
    for parent, conv, norm in pairs:
        folded = getattr(parent, norm)
        _fold(getattr(parent, conv), folded)
        setattr(parent, norm, _behind(folded))
    return module


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """A module and the names of its convolution and of the BatchNorm that comes right after it."""
    for parent in module.modules():
        if isinstance(parent, ConvModule) and ('conv', 'norm') not in _neighbours(parent.order):
            continue
        for (conv, first), (norm, second) in _neighbours(list(parent.named_children())):
            # By type, since subclasses compute something else with their weights.
            if type(first) in _CONVS and _is_fixed(second):
                yield parent, conv, norm


def _is_fixed(norm: nn.Module) -> bool:
    """Whether it is a BatchNorm that scales and shifts by its statistics."""
    known = type(norm).forward in _PLAIN or _acts(norm)
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None and known


def _acts(norm: nn.Module) -> bool:
    """Whether it goes on with dropout and activation, as timm's ``BatchNormAct2d`` does."""
    return type(norm).__module__ == 'timm.layers.norm_act'


def _behind(norm: _BatchNorm) -> nn.Module:
    """What is left of a norm when it is folded, in evaluation mode."""
    return (nn.Sequential(norm.drop, norm.act) if _acts(norm) else nn.Identity()).eval()


def _neighbours(items) -> list[tuple]:
    return list(zip(items, items[1:], strict=False))


def _refuse_shared(module: nn.Module, pairs: list[tuple[nn.Module, str, str]]) -> None:
    """Counts where each module is a child, and each tensor a parameter or buffer."""
    uses = Counter()
    for parent in module.modules():
        # Not `named_children` and its kin, which hide a second name of the same thing.
        for members in (parent._modules, parent._parameters, parent._buffers):
            uses.update(id(member) for member in members.values() if member is not None)
    for parent, *names in pairs:
        for name in names:
            child = getattr(parent, name)
            if any(uses[id(x)] > 1 for x in [child, *child.parameters(), *child.buffers()]):
                raise ConfigError(
                    f'cannot fold the norms of this {type(module).__name__}: {name!r} in a '
                    f'{type(parent).__name__} is shared with another place; deploy it as it is'
                )


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    tensors = conv.weight, conv.bias, norm.running_mean, norm.running_var
    affine = norm.weight, norm.bias
    # In double precision, so that only the results are rounded; not every device has that.
    weight, bias = fuse_conv_bn_weights(*map(_double, tensors), norm.eps, *map(_double, affine))
    conv.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().cpu().double()
