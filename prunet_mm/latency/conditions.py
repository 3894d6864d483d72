"""In what state a device is: clocks, power and driver, as far as they can be read here.

Read it when the measurement is over, while the device is still warm: an idle one lowers its clocks.
Imports torch only for a GPU.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# What nvidia-smi calls it, and what we call it.
_GPU = dict(
    driver_version='driver',
    pstate='power state',
    **{
        'clocks.sm': 'SM clock',
        'clocks.max.sm': 'of at most',
        'clocks.mem': 'memory clock',
        'power.draw': 'power',
        'power.limit': 'limit',
        'temperature.gpu': 'temperature in C',
    },
)


def conditions(device: str) -> dict[str, str]:
    """The state of a device, by name; what cannot be read is not in it.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.
    """
    if device == 'cpu':
        return _cpu(Path('/'))
    import torch

    return _gpu(f'GPU-{torch.cuda.get_device_properties(device).uuid}')


def _cpu(root: Path) -> dict[str, str]:
    cpu = root / 'sys/devices/system/cpu'
    clocks = re.findall(r'cpu MHz\s*: (\d+)', _text(root / 'proc/cpuinfo'))
    found = dict(
        clock=f'{max(clocks, key=int)} MHz' if clocks else '',
        governor=_text(cpu / 'cpu0/cpufreq/scaling_governor'),
        boost={'0': 'off', '1': 'on'}.get(_text(cpu / 'cpufreq/boost'), ''),
        turbo={'0': 'on', '1': 'off'}.get(_text(cpu / 'intel_pstate/no_turbo'), ''),
    )
    mains = [_text(path) for path in (root / 'sys/class/power_supply').glob('*/online')]
    if mains:
        found['power'] = 'mains' if '1' in mains else 'battery'
    return {name: value for name, value in found.items() if value}


def _gpu(uuid: str) -> dict[str, str]:
    command = ['nvidia-smi', f'--id={uuid}', f'--query-gpu={",".join(_GPU)}']
    try:
        done = subprocess.run(
            [*command, '--format=csv,noheader'], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in done.stdout.strip().split(',')]
    if done.returncode != 0 or len(values) != len(_GPU):
        return {}
    return {
        name: value
        for name, value in zip(_GPU.values(), values, strict=True)
        if not value.startswith('[')  # such as [N/A]
    }


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ''
