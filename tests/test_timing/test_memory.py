import sys

import pytest
import torch

from prunet_mm.timing import memory
from prunet_mm.timing.memory import available_bytes, failing_allocations

MEMINFO = 'MemTotal: 16000 kB\nMemFree: 1000 kB\nMemAvailable:    8000 kB\nBuffers: 7 kB\n'


@pytest.fixture
def machine(tmp_path):
    """Write files of /proc and /sys below a folder; returns the folder."""

    def write(**files):
        for path, text in files.items():
            path = tmp_path / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_what_files_have_borrowed_is_available(machine):
    assert available_bytes(machine(**{'proc/meminfo': MEMINFO})) == 8000 * 1024


@pytest.mark.parametrize(
    ('group', 'limit', 'usage', 'stat'),
    [
        ('', 'memory.max', 'memory.current', 'anon 1\ninactive_file 500\n'),
        ('memory/', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file 500'),
    ],
)
def test_a_container_has_what_its_limit_leaves(machine, group, limit, usage, stat):
    files = {limit: '4000000\n', usage: '3000000\n', 'memory.stat': stat}
    root = machine(
        **{f'sys/fs/cgroup/{group}{name}': text for name, text in files.items()},
        **{'proc/meminfo': MEMINFO},
    )
    assert available_bytes(root) == 1_000_500


def test_a_container_without_a_limit_has_what_the_machine_has(machine):
    group = {'sys/fs/cgroup/memory.max': 'max\n', 'sys/fs/cgroup/memory.current': '3000\n'}
    assert available_bytes(machine(**group, **{'proc/meminfo': MEMINFO})) == 8000 * 1024


def test_a_system_that_does_not_tell(tmp_path):
    assert available_bytes(tmp_path) is None


@pytest.fixture
def limit():
    """The limit of this process's data, which is back in the end."""
    if sys.platform != 'linux':
        pytest.skip('allocations fail by themselves')
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield lambda: resource.getrlimit(resource.RLIMIT_DATA)[0]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_beyond_what_is_available_an_allocation_fails_and_the_process_lives(limit, monkeypatch):
    monkeypatch.setattr(memory, 'available_bytes', lambda: 10**8)
    with failing_allocations('cpu'):
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(3 * 10**9, dtype=torch.uint8)
        assert torch.ones(10**6).sum() == 10**6
    torch.empty(3 * 10**9, dtype=torch.uint8)


def test_a_gpu_and_an_unknown_system_have_no_limit(limit, monkeypatch):
    before = limit()
    with failing_allocations('cuda:0'):
        assert limit() == before
    monkeypatch.setattr(memory, 'available_bytes', lambda: None)
    with failing_allocations('cpu'):
        assert limit() == before
