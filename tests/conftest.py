import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

# Before anything imports torch or matplotlib: one thread is fastest for networks this small, and
# no test has a display.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest

# A shell starts what goes on in the background deaf to Ctrl-C, and with it what tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout, with tools/ and configs/."""
    return ROOT


@pytest.fixture(scope='session')
def code_blocks():
    """Return the blocks of a language below a title of a page in docs/, in order."""

    def blocks(page: str, title: str, language: str = 'python') -> list[str]:
        text = (ROOT / 'docs' / page).read_text()
        section = re.search(rf'^## {title}.*?\n(.*?)(?=^## |\Z)', text, re.S | re.M)[1]
        return re.findall(rf'```{language}\n(.*?)```', section, re.S)

    return blocks


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


class Ranks:
    """A tool in several processes, copies of this one, started as torchrun starts them.

    Args:
        count: How many.
        folder: For what they print, a file each.
        args: The tool and its arguments.
        first: Called with the rank before the tool.
    """

    def __init__(self, count, folder, *args, first=None):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        world = dict(WORLD_SIZE=str(count), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        self.outputs = [folder / f'rank_{rank}.txt' for rank in range(count)]
        self.processes = [
            get_context('fork').Process(target=self._be, args=(rank, world, args, first))
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def _be(self, rank, world, args, first):
        os.environ.update(world, RANK=str(rank), LOCAL_RANK=str(rank), CUDA_VISIBLE_DEVICES='')
        file = os.open(self.outputs[rank], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, 'w', 1), os.fdopen(2, 'w', 1)
        os.chdir(ROOT)
        if first:
            first(rank)
        sys.argv = [str(arg) for arg in args]
        runpy.run_path(str(ROOT / sys.argv[0]), run_name='__main__')

    def end(self, hung=None, timeout=300):
        """Wait for all but the process that hangs; returns exit code and output of each."""
        try:
            for rank, process in enumerate(self.processes):
                if rank != hung:
                    process.join(timeout)
            return [
                (process.exitcode, output.read_text())
                for process, output in zip(self.processes, self.outputs, strict=True)
            ]
        finally:
            for process in self.processes:
                process.kill()


@pytest.fixture
def run_ranks(tmp_path):
    """Run a tool in several processes; see `Ranks`."""

    def run(count, *args, first=None, **kwargs):
        return Ranks(count, tmp_path, *args, first=first).end(**kwargs)

    return run


@pytest.fixture(scope='session')
def synthetic_table():
    """Build a table of all blocks of a space but the last few, on a device that is not here."""
    from prunet_mm.latency import LatencyTable
    from prunet_mm.spec import SearchSpace

    def latency_ms(key):
        """A launch, and what grows with the multiply-adds."""
        pixels = (key.height // key.stride) * (key.width // key.stride)
        channels = (key.hidden or key.out_channels) * (2 if key.op == 'fused_irb' else 1)
        return 0.01 + 3e-5 * pixels * key.kernel * channels

    def build(space, without_last=0, **fields):
        keys = SearchSpace.from_dict(space).block_keys()
        entries = [
            dict(key._asdict(), latency_ms=latency_ms(key), iqr_ms=0.0, samples=3)
            for key in keys[: len(keys) - without_last]
        ]
        known = dict(
            schema_version=1,
            kind='measured',
            device='a device far away',
            backend='eager',
            dtype='float32',
            batch=1,
            threads=1,
            software={},
            date='2026-01-01',
            protocol={},
        )
        return LatencyTable.from_dict(known | dict(entries=entries) | fields)

    return build


@pytest.fixture(scope='session')
def spread_scores():
    """Give a detector random weights by which it finds boxes of many different scores."""
    import torch

    from prunet_mm.latency.network import settle_norms

    def spread(detector, size=64):
        torch.manual_seed(0)
        head = detector.bbox_head
        last = head.retina_cls if hasattr(head, 'retina_cls') else head.class_net.predict.pointwise
        torch.nn.init.normal_(last.weight, std=1.5 / last.weight[0].numel() ** 0.5)
        settle_norms(detector.eval(), torch.randn(4, 3, size, size))

    return spread


@pytest.fixture(autouse=True)
def fresh_mmengine_globals():
    """Let no logger, scope or visualizer of one test, or call of this, be found in the next."""

    def forget(manager):
        manager._instance_dict.clear()
        for (
            kind
        ) in manager.__subclasses__():  # each class, every visualizer's too, has a dict of its own
            forget(kind)

    def forget_all():
        if 'mmengine' in sys.modules:
            from mmengine.utils import ManagerMixin

            forget(ManagerMixin)

    yield forget_all
    forget_all()
