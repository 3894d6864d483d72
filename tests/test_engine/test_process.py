import os
import signal
import subprocess
import sys

import pytest

from prunet_mm.engine.process import in_a_process
from prunet_mm.errors import PrunetError


def test_the_work_is_done_in_another_process():
    assert in_a_process(os.getpid) != os.getpid()


def test_an_error_comes_back_in_a_sentence():
    with pytest.raises(PrunetError, match=r'^ValueError: invalid literal for int'):
        in_a_process(int, 'x')


def test_a_process_that_dies_is_told():
    with pytest.raises(PrunetError, match='the process that was to do it has died'):
        in_a_process(os._exit, 3)


def test_ctrl_c_ends_both_without_the_others_traceback(tmp_path):
    """A terminal sends it to all processes of the group."""
    script = tmp_path / 'waits.py'
    script.write_text(
        'import time\n'
        'from prunet_mm.engine.process import in_a_process\n'
        'if __name__ == "__main__":\n'
        '    print("ready", flush=True)\n'
        '    try:\n'
        '        in_a_process(time.sleep, 60)\n'
        '    except KeyboardInterrupt:\n'
        '        print("interrupted", flush=True)\n'
    )
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ, PYTHONPATH=os.getcwd()),
    ) as run:
        assert run.stdout.readline() == 'ready\n'
        while len(_group(run.pid)) < 2:
            assert run.poll() is None
        os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert out == 'interrupted\n'
    assert err == ''


def _group(number: int) -> list[int]:
    """Processes of a group that have their program by now."""
    found = subprocess.run(['ps', '-eo', 'pid,pgid,args'], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    ours = [int(pid) for pid, group, command in rows if int(group) == number]
    return ours if any('spawn_main' in row[2] for row in rows if int(row[1]) == number) else []
