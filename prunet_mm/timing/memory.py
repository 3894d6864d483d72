"""How much memory there is, and failed allocations in place of a killed process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunet_mm.errors import PrunetError
from prunet_mm.timing.device import read

# Of what is available, this part at most is taken: the rest of the system goes on meanwhile.
PART = 0.9
# Of bytes, what is always left to small things, such as machine code that a library generates.
LEAST = 2**28
NO_MEMORY = re.compile(r"(can't|cannot|could not|failed to) allocate|out of memory|bad_alloc", re.I)
# Of control groups, version 2 and version 1: what a container may take, and what it has taken.
_GROUPS = (
    ('sys/fs/cgroup', 'memory.max', 'memory.current'),
    ('sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes'),
)


def available_bytes(root: Path = Path('/')) -> int | None:
    """Memory that programs can still get, in bytes; None where the system does not say.

    What is only lent to files counts, and so does the limit of a container.
    """
    found = re.search(r'^MemAvailable:\s*(\d+) kB$', read(root / 'proc/meminfo'), re.M)
    free = [1024 * int(found[1])] if found else []
    for group, *names in _GROUPS:
        known = [read(root / group / name) for name in names]
        if all(map(str.isdecimal, known)):  # else 'max', or there is no such group
            stat = read(root / group / 'memory.stat')
            files = re.search(r'^(?:total_)?inactive_file (\d+)$', stat, re.M)
            most, taken = map(int, known)
            free.append(max(0, most - taken + int(files[1] if files else 0)))
    return min(free, default=None)


def free_bytes(device: str) -> int:
    """Memory that can still be had, in bytes; 2 GiB where the system does not say."""
    if device == 'cpu':
        return available_bytes() or 2 * 2**30
    import torch

    return torch.cuda.mem_get_info(device)[0]


@contextmanager
def explained(device: str, batch: int) -> Iterator[None]:
    """Turns an allocation that failed into a `PrunetError` that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            raise PrunetError(
                f'{device} is out of memory: measure with a batch below {batch}'
            ) from error
        raise


@contextmanager
def failing_allocations(device: str) -> Iterator[None]:
    """Makes allocations fail beyond nearly all the memory that is available now.

    Linux grants more than there is, and kills whoever takes it: no row of a comparison could say
    that it was too large, and the others would be lost with it. Other systems need no limit.

    Args:
        device: Where the work is done; on a GPU allocations fail by themselves.
    """
    used = re.search(r'^VmData:\s*(\d+) kB$', read(Path('/proc/self/status')), re.M)
    available = available_bytes()
    if device != 'cpu' or used is None or available is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    known = [limit for limit in before if limit != resource.RLIM_INFINITY]
    more = max(LEAST, int(PART * available))
    resource.setrlimit(resource.RLIMIT_DATA, (min([1024 * int(used[1]) + more, *known]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
