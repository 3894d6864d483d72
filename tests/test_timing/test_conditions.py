import os
import sys

import pytest

from prunet_mm.timing.conditions import _cpu, _gpu, _verdict, conditions, drift_sentence, watched


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name on PATH that prints a line and ends with a code."""

    def install(line, code=0, wait=False):
        path, ran = tmp_path / 'nvidia-smi', tmp_path / 'ran'
        path.write_text(
            f'#!{sys.executable}\nimport pathlib, time\nprint({line!r}, flush=True)\n'
            f'pathlib.Path({str(ran)!r}).touch()\ntime.sleep({60 * wait})\n'
            f'raise SystemExit({code})\n'
        )
        path.chmod(0o755)
        monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
        install.ran = ran.exists

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


@pytest.mark.parametrize(
    ('lines', 'sentence'),
    [
        (['1380, 0x0000000000000000'] * 3, 'SM clock 1380 to 1380 MHz: steady'),
        (
            ['1380, 0x0', '1200, 0x0', '300, 0x1'],
            'SM clock 1200 to 1380 MHz: not to be trusted: lock the clock',
        ),
        (
            ['1380, 0x0', '1380, 0x0000000000000024'],
            'SM clock 1380 to 1380 MHz, held back by its power limit and its temperature: not to',
        ),
    ],
)
def test_a_gpu_that_was_held_back_is_not_trusted(lines, sentence):
    (said,) = _verdict(lines)
    assert said.startswith(sentence)


def test_a_gpu_is_watched_while_something_runs(nvidia_smi, monkeypatch):
    from prunet_mm.timing import conditions as module

    monkeypatch.setattr(module, '_uuid', lambda device: 'GPU-1')
    nvidia_smi('1380, 0x4', wait=True)
    with watched('cuda:0') as said:
        while not nvidia_smi.ran():
            pass
    assert said == [
        'SM clock 1380 to 1380 MHz, held back by its power limit: not to be trusted: lock the '
        'clock (nvidia-smi -lgc)'
    ]


def test_a_card_or_cpu_that_says_nothing_of_its_clock_is_not_judged(monkeypatch):
    from prunet_mm.timing import conditions as module

    assert _verdict(['[N/A], [N/A]', '']) == []
    monkeypatch.setattr(module, '_uuid', lambda device: 'GPU-1')
    monkeypatch.setenv('PATH', '')
    for device in ('cpu', 'cuda'):
        with watched(device) as said:
            pass
        assert said == []


def test_a_restless_machine_is_told():
    assert drift_sentence([0.99, 1.0, 1.01]) == '0.990 to 1.010 of the usual time, steady'
    assert drift_sentence([1.0, 1.2]).endswith('restless: measure again, idle')
