"""Which device a latency belongs to. Imports torch only where a GPU or its version is asked for."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from prunet_mm.errors import ConfigError


def device_name(device: str) -> str:
    """What the hardware calls itself, for instance 'AMD EPYC (family 25, model 17)'.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        ConfigError: There is no such device here.
    """
    require_device(device)
    if device == 'cpu':
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)


def is_here(name: str, device: str) -> bool:
    """Whether this machine's ``device`` ('cpu', 'cuda', ...) calls itself ``name``."""
    try:
        return device_name(device) == name
    except ConfigError:  # there is no such device
        return False


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

    from prunet_mm.timing.backends import BACKENDS
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


def cores(root: Path = Path('/')) -> int:
    """Cores that this process may use: of affinity and control group, too."""
    affinity = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    limits = [len(affinity(0))]
    groups = root / 'sys/fs/cgroup'
    quotas = [
        read(groups / 'cpu.max').split(),
        [read(groups / f'cpu/cpu.cfs_{name}_us') for name in ('quota', 'period')],
    ]
    for quota in quotas:
        if len(quota) == 2 and all(map(str.isdecimal, quota)):  # else 'max', -1, or no such group
            limits.append(int(quota[0]) / int(quota[1]))
    return max(1, math.floor(min(limits)))


def cpu_name(root: Path = Path('/')) -> str:
    """The CPU's model, with family and number, since virtual machines cut the name short.

    ARM's Linux gives no name: there it is the board's, with the numbers of designer and parts.
    """
    lines = read(root / 'proc/cpuinfo').splitlines()
    pairs = [re.split(r'\s*:\s*', line, maxsplit=1) for line in lines if ':' in line]
    found = dict(pairs)
    numbers = [f'{key.split()[-1]} {found[key]}' for key in ('cpu family', 'model') if key in found]
    name = found.get('model name', '')
    if 'CPU part' in found:
        board = read(root / 'proc/device-tree/model').strip('\0')
        name = name or board or read(root / 'sys/class/dmi/id/product_name') or platform.machine()
        parts = dict.fromkeys(value for key, value in pairs if key == 'CPU part')
        numbers = [f'implementer {found.get("CPU implementer")}', f'part {" + ".join(parts)}']
    if not name and platform.system() == 'Darwin':
        name = _output('sysctl', '-n', 'machdep.cpu.brand_string')
    name = name or platform.processor() or platform.machine()
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


def read(path: Path) -> str:
    """A small file of the system, or nothing."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ''


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ''
