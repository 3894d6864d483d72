"""Which device a latency belongs to. Imports torch only where a GPU or its version is asked for."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.errors import ConfigError

if TYPE_CHECKING:
    from prunet_mm.latency.table import LatencyTable


def device_name(device: str) -> str:
    """What the hardware calls itself, for instance 'AMD EPYC (family 25, model 17)'.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        ConfigError: There is no such device here.
    """
    require_device(device)
    if device == 'cpu':
        return _cpu_name(Path('/proc/cpuinfo'))
    import torch

    return torch.cuda.get_device_name(device)


def require_device(device: str) -> None:
    """Raises a `ConfigError` unless ``device`` is 'cpu', or a CUDA device that is there."""
    if device == 'cpu':
        return
    if not re.fullmatch(r'cuda(:\d+)?', device):
        raise ConfigError(f'unknown device "{device}": choose cpu, cuda or cuda:N')
    import torch

    if int(device.partition(':')[2] or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f'device {device} was asked for, but torch sees {torch.cuda.device_count()} CUDA '
            'devices here; choose --device cpu'
        )


def software(device: str, backends: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what runs the network, by name.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.
        backends: Keys of `BACKENDS`; what they need beside torch is in it, too.
    """
    import torch

    from prunet_mm.latency.backends import BACKENDS
    from prunet_mm.version import __version__

    versions = dict(
        prunet_mm=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        platform=f'{platform.system()} {platform.machine()}',
    )
    if device != 'cpu':
        versions |= dict(
            cuda=torch.version.cuda,
            cudnn=str(torch.backends.cudnn.version()),
            tf32='on' if torch.backends.cudnn.allow_tf32 else 'off',  # in float32 convolutions
        )
    for name in backends:
        versions |= BACKENDS[name].versions()
    return versions


@cache
def check_device(table: LatencyTable, device: str) -> None:
    """Warns, once per table and device, that ``table`` is of another device than ``device``."""
    name = device_name(device)
    if table.device != name:
        warnings.warn(
            f'{table.source} is of {table.device}, but this is {name}: '
            'what it predicts does not hold here',
            stacklevel=2,
        )


def _cpu_name(cpuinfo: Path) -> str:
    """The CPU's model, with family and number, since virtual machines cut the name short."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    found = dict(re.split(r'\s*:\s*', line, maxsplit=1) for line in lines if ':' in line)
    name = found.get('model name') or platform.processor() or platform.machine()
    numbers = [f'{key.split()[-1]} {found[key]}' for key in ('cpu family', 'model') if key in found]
    return f'{name} ({", ".join(numbers)})' if numbers else name


def keep_freed_memory() -> bool:
    """Makes glibc keep, from now on, the memory that tensors give back, as servers' allocators do.

    By default it may return a large tensor to the system as soon as that is freed and take it back,
    page by page, for the next one. Whether it does depends on what the process did before: the same
    block then costs up to four times as much in one process as in another, and no sum of blocks
    predicts a network.

    Returns:
        Whether it took effect; False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != 'glibc' or os.name != 'posix':
        return False
    import ctypes

    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, -1))
