"""Mixed precision in bfloat16, on any device that computes in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from prunet_mm.errors import ConfigError


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Computes what autocast lets in bfloat16; weights and gradients stay float32.

    Nothing is scaled, since bfloat16 has float32's range. mmengine's own wrapper takes no CPU.

    Raises:
        ConfigError: This device emulates bfloat16, which would be slower than float32.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.device = get_device()
        if not computes_bf16(self.device):
            raise ConfigError(
                f'mixed precision in bfloat16: this {self.device} does not compute in it; a CPU '
                'needs AVX512_BF16 or AMX, a CUDA device has to be of Ampere or newer'
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enables autocast, and what :class:`mmengine.optim.OptimWrapper` enables."""
        with super().optim_context(model), torch.autocast(self.device, torch.bfloat16):
            yield


def computes_bf16(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.
    """
    if device == 'cpu':
        # torch has no public name for it.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_bf16_supported(including_emulation=False)
