import os
import subprocess
import sys

import pytest

from prunet_mm.engine.lock import only_run
from prunet_mm.errors import ConfigError

HOLD = """
import os, sys, time
from prunet_mm.engine.lock import only_run
with only_run(sys.argv[1]):
    worker = os.fork()  # a loader's worker, which may outlive its parent
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that runs in the folder, and the id of its worker."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    worker = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(worker, 9)


def test_a_second_run_is_refused_until_the_first_is_killed(holder, tmp_path):
    taken = pytest.raises(ConfigError, match=f'another process is running in {tmp_path}')
    with taken, only_run(tmp_path):
        raise AssertionError('both run')
    holder.kill()
    holder.wait()
    with only_run(tmp_path):
        pass


def test_one_run_after_the_other(tmp_path):
    for _ in range(2):
        with only_run(tmp_path / 'a/b'):
            assert (tmp_path / 'a/b').is_dir()


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / 'file').touch()
    refused = pytest.raises(ConfigError, match='cannot write to the work dir .*file/work: Not a d')
    with refused, only_run(tmp_path / 'file/work'):
        raise AssertionError('it runs')
