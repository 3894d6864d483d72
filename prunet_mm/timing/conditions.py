"""In what state a device is: clocks, power and driver, as far as they can be read here.

Read it when the measurement is over, while the device is still warm: an idle one lowers its clocks.
Imports torch only for a GPU.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunet_mm.timing.device import read

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
# Bits of NVML's nvmlClocksThrottleReasons that say that the card could not keep its clock.
_REASONS = {
    0x04: 'its power limit',
    0x08: 'a hardware slowdown',
    0x20: 'its temperature',
    0x40: 'its temperature',
    0x80: 'its power supply',
}
_IDLE = 0x01  # between two targets, while one is prepared
STEADY = 0.02  # share by which a clock may move in a run that is to be trusted


def conditions(device: str) -> dict[str, str]:
    """The state of a device, by name; what cannot be read is not in it.

    Args:
        device: 'cpu', 'cuda' or 'cuda:N'.
    """
    return _cpu(Path('/')) if device == 'cpu' else _gpu(_uuid(device))


@contextlib.contextmanager
def watched(device: str, period_ms: int = 200) -> Iterator[list[str]]:
    """Watches a GPU's clock meanwhile; a CPU's shows in what is timed on it.

    Yields:
        A list that in the end has a sentence on the clock, if the card told it.
    """
    said: list[str] = []
    if device == 'cpu':
        yield said
        return
    query = '--query-gpu=clocks.sm,clocks_throttle_reasons.active'
    command = ['nvidia-smi', f'--id={_uuid(device)}', query, '--format=csv,noheader,nounits']
    with tempfile.TemporaryFile('w+') as file:
        try:
            run = subprocess.Popen([*command, f'--loop-ms={period_ms}'], stdout=file)
        except OSError:
            yield said
            return
        try:
            yield said
        finally:
            run.terminate()
            run.wait()
            file.seek(0)
            said += _verdict(file.readlines())


def drift_sentence(speeds: Sequence[float]) -> str:
    """What to say of how slow a machine was in rounds or at visits, 1 for most of the time."""
    low, high = min(speeds, default=1.0), max(speeds, default=1.0)
    steady = 'steady' if high <= low * (1 + 2 * STEADY) else 'restless: measure again, idle'
    return f'{low:.3f} to {high:.3f} of the usual time, {steady}'


def _verdict(lines: Sequence[str]) -> list[str]:
    found = [re.match(r'\s*(\d+)\s*,\s*0x([0-9a-fA-F]+)', line) for line in lines]
    known = [(int(one[1]), int(one[2], 16)) for one in found if one]
    known = [(clock, reasons) for clock, reasons in known if not reasons & _IDLE]
    if not known:
        return []
    clocks = [clock for clock, _ in known]
    why = dict.fromkeys(words for bit, words in _REASONS.items() for _, x in known if x & bit)
    trusted = not why and max(clocks) <= min(clocks) * (1 + 2 * STEADY)
    limits = f', held back by {" and ".join(why)}' if why else ''
    verdict = 'steady' if trusted else 'not to be trusted: lock the clock (nvidia-smi -lgc)'
    return [f'SM clock {min(clocks)} to {max(clocks)} MHz{limits}: {verdict}']


def _uuid(device: str) -> str:
    import torch

    return f'GPU-{torch.cuda.get_device_properties(device).uuid}'


def _cpu(root: Path) -> dict[str, str]:
    cpu = root / 'sys/devices/system/cpu'
    clocks = re.findall(r'cpu MHz\s*: (\d+)', read(root / 'proc/cpuinfo'))
    found = dict(
        clock=f'{max(clocks, key=int)} MHz' if clocks else '',
        governor=read(cpu / 'cpu0/cpufreq/scaling_governor'),
        boost={'0': 'off', '1': 'on'}.get(read(cpu / 'cpufreq/boost'), ''),
        turbo={'0': 'on', '1': 'off'}.get(read(cpu / 'intel_pstate/no_turbo'), ''),
    )
    mains = [read(path) for path in (root / 'sys/class/power_supply').glob('*/online')]
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
