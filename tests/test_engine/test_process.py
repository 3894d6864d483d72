import os
import signal
import subprocess
import sys
import time

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
    script, begun = tmp_path / 'waits.py', tmp_path / 'begun'
    script.write_text(
        'import pathlib, sys, time\n'
        'from prunet_mm.engine.process import in_a_process\n'
        'def work(path):\n'
        '    pathlib.Path(path).touch()\n'
        '    time.sleep(60)\n'
        'if __name__ == "__main__":\n'
        '    try:\n'
        '        in_a_process(work, sys.argv[1])\n'
        '    except KeyboardInterrupt:\n'
        '        print("interrupted", flush=True)\n'
    )
    with subprocess.Popen(
        [sys.executable, script, begun],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ, PYTHONPATH=os.getcwd()),
    ) as run:
        while not begun.exists():
            assert run.poll() is None
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert out == 'interrupted\n'
    assert err == ''
