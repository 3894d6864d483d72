import os
import subprocess
import sys
from pathlib import Path

# Before anything imports torch or matplotlib: one thread is fastest for networks this small, and
# no test has a display.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout, with tools/ and configs/."""
    return ROOT


@pytest.fixture
def run_python():
    """Run python with some arguments from the checkout, as a user would."""

    def run(*args, timeout=120, **env) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=ROOT,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(autouse=True)
def fresh_mmengine_globals():
    """Let no logger, scope or visualizer of one test be found by name in the next."""
    yield
    if 'mmengine' in sys.modules:
        from mmengine.logging import MessageHub, MMLogger
        from mmengine.registry import DefaultScope
        from mmengine.visualization import Visualizer

        for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
            manager._instance_dict.clear()
