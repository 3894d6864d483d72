import os
import sys

import pytest

from prunet_mm.latency.conditions import _cpu, _gpu, conditions


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name on PATH that prints a line and ends with a code."""

    def install(line, code=0):
        path = tmp_path / 'nvidia-smi'
        path.write_text(f'#!{sys.executable}\nprint({line!r})\nraise SystemExit({code})\n')
        path.chmod(0o755)
        monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)

    return install


def test_clocks_and_power_of_a_cpu(tmp_path):
    for path, text in {
        'proc/cpuinfo': 'cpu MHz\t\t: 1500.2\ncpu MHz\t\t: 3100.9\n',
        'sys/devices/system/cpu/cpu0/cpufreq/scaling_governor': 'powersave\n',
        'sys/devices/system/cpu/cpufreq/boost': '1\n',
        'sys/class/power_supply/AC/online': '0\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert _cpu(tmp_path) == dict(
        clock='3100 MHz', governor='powersave', boost='on', power='battery'
    )


def test_what_cannot_be_read_is_left_out(tmp_path):
    assert _cpu(tmp_path) == {}
    assert all(conditions('cpu').values())


def test_clocks_and_power_of_a_gpu(nvidia_smi):
    nvidia_smi('535.1, P0, 1380 MHz, 1530 MHz, 877 MHz, 61.5 W, [N/A], 41')
    assert _gpu('GPU-1') == {
        'driver': '535.1',
        'power state': 'P0',
        'SM clock': '1380 MHz',
        'of at most': '1530 MHz',
        'memory clock': '877 MHz',
        'power': '61.5 W',
        'temperature in C': '41',
    }


@pytest.mark.parametrize(('line', 'code'), [('No devices were found', 0), ('a,' * 8, 6)])
def test_a_gpu_that_does_not_tell(nvidia_smi, line, code):
    nvidia_smi(line, code)
    assert _gpu('GPU-1') == {}
