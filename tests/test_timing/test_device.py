import os
import platform

import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.timing import Settings, settings
from prunet_mm.timing.device import cores, cpu_name, device_name, is_here, require_device


def test_a_device_is_here_by_the_name_of_the_hardware():
    assert is_here(device_name('cpu'), 'cpu')
    assert not is_here('another device', 'cpu')
    assert not is_here(device_name('cpu'), 'cuda:99')


@pytest.mark.parametrize(
    ('device', 'sentence'),
    [
        ('gpu', 'unknown device "gpu": choose cpu, cuda or cuda:N'),
        ('cuda:x', 'unknown device "cuda:x"'),
        ('cuda:99', 'device cuda:99 was asked for, but torch sees'),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(device, sentence):
    with pytest.raises(ConfigError, match=sentence):
        require_device(device)


@pytest.fixture
def machine(tmp_path):
    """Write files of a system below a folder; returns the folder."""

    def write(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return write


def test_a_cpu_is_named_with_its_model_number(machine):
    text = 'processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\n'
    assert cpu_name(machine({'proc/cpuinfo': text})) == 'AMD EPYC (family 25, model 17)'


ARM = 'processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {}\n'


def test_arms_cpus_are_told_apart_by_their_numbers_and_boards(machine):
    names = [cpu_name(machine({'proc/cpuinfo': ARM.format(part)})) for part in ('0xd0c', '0xd40')]
    assert names[0].endswith('(implementer 0x41, part 0xd0c)')
    assert names[0] != names[1]
    board = {'proc/device-tree/model': 'Raspberry Pi 4 Model B Rev 1.4\0'}
    assert cpu_name(machine({'proc/cpuinfo': ARM.format('0xd08')} | board)) == (
        'Raspberry Pi 4 Model B Rev 1.4 (implementer 0x41, part 0xd08)'
    )


def test_a_cpu_of_two_kinds_of_cores_names_both(machine):
    both = ARM.format('0xd03') + ARM.format('0xd09') + ARM.format('0xd09')
    assert cpu_name(machine({'proc/cpuinfo': both})).endswith('part 0xd03 + 0xd09)')


def test_a_cpu_without_cpuinfo_has_a_name(tmp_path):
    assert cpu_name(tmp_path / 'none') == (platform.processor() or platform.machine())


@pytest.mark.parametrize(
    ('files', 'count'),
    [
        ({}, 8),
        ({'cpu.max': 'max 100000'}, 8),
        ({'cpu.max': '250000 100000'}, 2),
        ({'cpu.max': '50000 100000'}, 1),
        ({'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, 8),
        ({'cpu/cpu.cfs_quota_us': '300000', 'cpu/cpu.cfs_period_us': '100000'}, 3),
    ],
)
def test_cores_are_those_of_affinity_and_control_group(machine, monkeypatch, files, count):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(8)), raising=False)
    root = machine({f'sys/fs/cgroup/{path}': text for path, text in files.items()} | {'x': ''})
    assert cores(root) == count


def test_more_threads_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(settings, 'cores', lambda: 1)
    Settings(threads=1).require()
    with pytest.raises(ConfigError, match='2 threads on 1 core that this .* --threads 1 or fewer'):
        Settings(threads=2).require()


@pytest.mark.parametrize(
    ('setting', 'sentence'),
    [
        (dict(batch=0), 'latency.batch is 0: expected a whole number above 0'),
        (dict(batch=True), 'latency.batch is True: expected a whole number above 0'),
        (dict(threads=1.5), 'latency.threads is 1.5: expected a whole number above 0'),
        (dict(dtype='int8'), "latency.dtype is 'int8': choose float32, float16, bfloat16"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Settings(**setting)
