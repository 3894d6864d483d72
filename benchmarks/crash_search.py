"""Small searches that tell which phase they enter, for `crash_test.py` to have accidents in.

Every search is a process of its own that calls ``tools/search.py``, and tells through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import mmdet.models  # noqa: F401, once for all: a process begins as a copy of this one
import mmpretrain.models  # noqa: F401
import sklearn.datasets  # noqa: F401
from mmengine.config import Config

from prunet_mm.engine.checkpoint_hook import AtomicCheckpointHook
from prunet_mm.engine.files import write_atomic
from prunet_mm.latency import LatencyTable
from prunet_mm.search import hooks, loop, model
from prunet_mm.spec import SearchSpace

ROOT = Path(__file__).resolve().parents[1]
PHASES = ('warm-up', 'architecture', 'removal', 'settling', 'checkpoint', 'report')
CONFIGS = dict(digits='prunet_digits', detection='prunet_digits_det')
STEPS, WARM_UP = 30, 6
OPTIONS = [
    f'train_cfg.max_iters={STEPS}',
    f'train_cfg.warmup_iters={WARM_UP}',
    'train_cfg.architecture_interval=1',
    'train_cfg.architecture_fraction=0.5',
    'train_cfg.architecture_batch_size=2',
    'train_dataloader.batch_size=2',
    'optim_wrapper.architecture.optimizer.lr=0.3',
    # a lambda that moves, and yet is steady enough to decide by
    'model.objective.type=AugmentedLagrangian',
    'model.objective.weight=0.1',
    'model.objective.rate=0.01',
    'default_hooks.checkpoint.interval=5',
    'default_hooks.logger.interval=5',
    'custom_hooks.4.threshold.start=0.0',
    'custom_hooks.4.threshold.end=0.4',
    'custom_hooks.5.threshold=0.95',
    'custom_hooks.5.begin=0.2',
    'custom_hooks.5.interval=2',
    'custom_hooks.5.probes=2',
    'custom_hooks.6.interval=2',
    'custom_hooks.6.probes=2',
]
SPACE = 'model.architecture.backbone.space.stages'
OF_TASK = dict(
    digits=[f'{SPACE}.{stage}.depth=2' for stage in (0, 1)],
    detection=[
        'model.latency.budget_ratio=0.6',
        'train_dataloader.dataset.pipeline.2.scale=(64,64)',
        *(f'{SPACE}.{stage}.depth=2' for stage in (1, 2, 3)),
        *(f'{SPACE}.{stage}.max_expansion=2' for stage in (1, 2, 3)),
    ],
)
LONGEST = 3600  # seconds that one search may take


class Search:
    """A search in a process of its own, which tells of its phases.

    Attributes:
        marks: Name of each phase that was entered, and the second at which it was.
    """

    def __init__(self, folder: Path, task: str, workers: int, work_dir: Path, *args: str) -> None:
        options = [*OPTIONS, *OF_TASK[task], f'train_dataloader.num_workers={workers}']
        options.append(f'model.latency.table={folder}/{task}.json')
        if task == 'detection':
            options.append(f'train_dataloader.dataset.data_root={folder}/scenes/')
        self.work_dir, self.output = work_dir, Path(f'{work_dir}{"".join(args)}.txt')
        argv = ['tools/search.py', f'configs/search/{CONFIGS[task]}.py', '--work-dir', work_dir]
        argv = [*map(str, argv), *args, '--cfg-options', *options]
        reading, writing = os.pipe()
        self.process = get_context('fork').Process(
            target=run_tool, args=(argv, self.output, writing, reading)
        )
        self.process.start()
        os.close(writing)
        self.pid = self.process.pid
        self._pipe, self._told = reading, b''

    @property
    def marks(self) -> list[tuple[str, float]]:
        words = (line.split('\t') for line in self._told.decode().splitlines())
        return [(phase, float(second)) for phase, second in words]

    def wait_for(self, count: int) -> None:
        """Wait until so many phases were entered, or for the end of the search."""
        while self._told.count(b'\n') < count and (more := os.read(self._pipe, 4096)):
            self._told += more

    def end(self) -> int:
        """Wait for the end; returns the exit code, of a signal its number below 0."""
        self.process.join(LONGEST)
        os.set_blocking(self._pipe, False)  # a worker that lives on has the other end, too
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._pipe, 4096):
                self._told += more
        os.close(self._pipe)
        return self.process.exitcode

    def left(self, seconds: float = 30) -> bool:
        """Whether any process of the search lives on after its end."""
        end = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(self.pid, 0)
                if time.monotonic() > end:
                    return True
                time.sleep(0.2)
        return False

    @property
    def last_line(self) -> str:
        """What the search said last, without what follows of a long command."""
        line = (self.output.read_text().strip().splitlines() or [''])[-1]
        return line.replace(f'{ROOT}/', '').partition(' --cfg-options ')[0]


def run_tool(argv: list[str], output: Path, pipe: int, other_end: int) -> None:
    """Be ``python TOOL ...``, in a group of processes of its own."""
    os.setsid()
    os.close(other_end)
    # a shell starts what goes on in the background deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, 'w', 1), os.fdopen(2, 'w', 1)
    os.chdir(ROOT)
    tell_phases(lambda phase: os.write(pipe, f'{phase}\t{time.monotonic()}\n'.encode()))
    # So few steps do not bring E[lat] to the budget, which decisions wait for.
    model.ArchitectureSearch._within = lambda self, _: self.ramp.budget_ms is not None
    sys.argv = argv
    runpy.run_path(str(ROOT / argv[0]), run_name='__main__')


def tell_phases(tell: Callable[[str], None]) -> None:
    """Have this process tell which phase of a search it enters."""

    def telling(owner, name: str, phase: Callable | str, back: bool = False) -> None:
        method = getattr(owner, name)

        def call(self, *args, **kwargs):
            tell(phase(self) if callable(phase) else phase)
            result = method(self, *args, **kwargs)
            if back:
                tell('architecture')
            return result

        setattr(owner, name, call)

    def of_step(one: loop.SearchLoop) -> str:
        return 'warm-up' if one.iter < one.warmup_iters else 'architecture'

    telling(loop.SearchLoop, '_run_iter', of_step)
    telling(hooks.DeriveHook, 'after_train', 'report')
    telling(AtomicCheckpointHook, '_save_checkpoint_with_step', 'checkpoint', back=True)
    for module, name, phase in (
        (hooks.block_pruning_hook, 'circumstances', 'removal'),
        (hooks.block_pruning_hook, 'forget_removed', 'removal'),
        (hooks.layer_pruning_hook, 'forget_removed', 'removal'),
        (hooks.settle_hook, 'next_decision', 'settling'),
        (hooks.settle_hook, 'forget_removed', 'settling'),
    ):
        telling(module, name, phase)


def prepare(folder: Path) -> None:
    """Compose a few scenes of digits, and write a table of both spaces."""
    if not (folder / 'scenes').exists():
        argv = [
            'tools/dataset_converters/digits_to_coco.py',
            '--out',
            str(folder / 'new'),
            '--train',
        ]
        sys.argv = [*argv, '12', '--val', '2', '--size', '96']
        with contextlib.suppress(SystemExit):
            runpy.run_path(str(ROOT / argv[0]), run_name='__main__')
        (folder / 'new').rename(folder / 'scenes')
    for task, config in CONFIGS.items():
        cfg = Config.fromfile(ROOT / f'configs/search/{config}.py')
        latency = cfg.model.latency
        entries = [
            dict(key._asdict(), latency_ms=made_up_ms(key), iqr_ms=0.0, samples=3)
            for key in SearchSpace.from_dict(cfg.space.to_dict()).block_keys()
        ]
        table = dict(schema_version=1, kind='estimated', device='none', backend='eager')
        table |= dict(dtype='float32', batch=latency.batch, threads=1, software={}, protocol={})
        LatencyTable.from_dict(table | dict(date='2026-01-01', entries=entries)).save(
            folder / f'{task}.json'
        )


def made_up_ms(key) -> float:
    """A launch, and what grows with the multiply-adds."""
    pixels = (key.height // key.stride) * (key.width // key.stride)
    channels = (key.hidden or key.out_channels) * (2 if key.op == 'fused_irb' else 1)
    return 0.01 + 3e-5 * pixels * key.kernel * channels


def undisturbed(folder: Path, task: str, workers: int) -> list[list]:
    """The phases of a search that nothing happens to, and their seconds; it is run once."""
    work_dir = whole(folder, task, workers)
    marks = work_dir / 'marks.json'
    if not marks.exists():
        shutil.rmtree(work_dir, ignore_errors=True)
        search = Search(folder, task, workers, work_dir)
        if code := search.end():
            raise SystemExit(f'the undisturbed search ended with {code}: {search.output}')
        missing = set(PHASES) - {phase for phase, _ in search.marks}
        if missing:
            raise SystemExit(f'{work_dir}: no {", ".join(missing)} in this search')
        ends = [*(second for _, second in search.marks[1:]), time.monotonic()]
        spans = [
            [phase, end - start] for (phase, start), end in zip(search.marks, ends, strict=True)
        ]
        write_atomic(marks, json.dumps(spans))
    return json.loads(marks.read_text())


def whole(folder: Path, task: str, workers: int) -> Path:
    """The work dir of the undisturbed search."""
    return folder / f'whole_{task}_{workers}'
