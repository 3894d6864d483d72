"""A search that is killed at a random moment, and other accidents: it ends as if nothing had been.

    python benchmarks/crash_test.py [--kills 20] [--work-dir work_dirs/crash_test]

Small searches, of digits and of a detector of digits, with 0 and 2 workers, run once undisturbed.
Then each is killed (-9) once per phase, at a random moment of it, and resumed to its end; Ctrl-C
and SIGTERM go to all processes of a search; a limit on the size of files stands for a full disk;
the newest checkpoint is damaged. After ``--resume`` network, history, last checkpoint and searched
weights have to be those of the undisturbed search to the bit. Every search is a process of its own
that calls ``tools/search.py`` and tells through a pipe which phase it enters. The result of each
accident goes to benchmarks/results/crash_test.json at once, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import mmdet.models  # noqa: F401, once for all: a process begins as a copy of this one
import mmpretrain.models  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch
from mmengine.config import Config

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.engine.checkpoint_hook import AtomicCheckpointHook
from prunet_mm.engine.files import write_atomic
from prunet_mm.latency import LatencyTable
from prunet_mm.search import hooks, loop, model
from prunet_mm.spec import SearchSpace
from prunet_mm.timing.device import device_name, software

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/crash_test.json'
PHASES = ('warm-up', 'architecture', 'removal', 'settling', 'checkpoint', 'report')
CONFIGS = dict(digits='prunet_digits', detection='prunet_digits_det')
SEARCHES = [(task, workers) for workers in (0, 2) for task in CONFIGS]
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


def differences(one: Path, other: Path) -> list[str]:
    """The files in which two searches differ, by bytes or, of checkpoints, by any tensor."""
    found = [
        name
        for name in ('subnet.json', 'history.jsonl')
        if not (other / name).exists() or (one / name).read_bytes() != (other / name).read_bytes()
    ]
    for name in (f'iter_{STEPS}.pth', 'searched.pth'):
        if not (other / name).exists():
            found.append(name)
            continue
        first, second = (load_checkpoint_file(path / name)['state_dict'] for path in (one, other))
        same = first.keys() == second.keys()
        if not same or not all(torch.equal(first[key], second[key]) for key in first):
            found.append(name)
    return found


class Accident:
    """Something that happens to a search at a random moment of a phase.

    Args:
        folder: Of all searches.
        name: Of this one's work dir, and of its result.
        task: What is searched on.
        workers: Of its data loader.
        phase: In which it happens.
    """

    def __init__(self, folder: Path, name: str, task: str, workers: int, phase: str) -> None:
        self.folder, self.name, self.task, self.workers = folder, name, task, workers
        self.phase, self.work_dir = phase, folder / name.replace(' ', '_')

    def happens(self, act: Callable[[Search], None]) -> tuple[Search, dict]:
        """Start the search and ``act`` on it at that moment; returns it, and what to report."""
        spans = undisturbed(self.folder, self.task, self.workers)
        rng = random.Random(self.name)
        chosen = rng.choice([i for i, (phase, _) in enumerate(spans) if phase == self.phase])
        delay = 2 * rng.random() * spans[chosen][1]
        acted = False
        while not acted:  # again, if it came too late: this search was faster than the undisturbed
            delay /= 2
            shutil.rmtree(self.work_dir, ignore_errors=True)
            search = Search(self.folder, self.task, self.workers, self.work_dir)
            search.wait_for(chosen + 1)
            time.sleep(delay)
            acted = search.process.is_alive()
            act(search)
            code = search.end()
        return search, dict(
            search=f'{self.task}, {self.workers} workers',
            phase=self.phase,
            mark=f'{chosen} of {len(spans)}',
            after_seconds=round(delay, 4),
            last_phase=search.marks[-1][0],
            exit_code=code,
            said=search.last_line,
            processes_left=search.left(),
        )

    def resumed(self) -> dict:
        """Go on to the end; returns how that ended and what differs."""
        search = Search(self.folder, self.task, self.workers, self.work_dir, '--resume')
        code = search.end()
        lines = search.output.read_text().replace(f'{ROOT}/', '').splitlines()
        said = [line for line in lines if 'going on from' in line]
        result = dict(resumed_exit_code=code, resumed_said=said)
        if code:
            return dict(result, said_in_the_end=search.last_line, same=False)
        found = differences(whole(self.folder, self.task, self.workers), self.work_dir)
        return dict(result, differs=found, same=not found)


def kill(search: Search) -> None:
    """As the kernel does when memory runs out: the main process alone, without a warning."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(search.pid, signal.SIGKILL)


def send(number: signal.Signals) -> Callable[[Search], None]:
    """A signal to all processes of a search, as a terminal and a batch system send it."""

    def act(search: Search) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(search.pid, number)

    return act


def fill_disk(search: Search) -> None:
    """Let no file grow beyond the history and a part of a row, as on a disk that is full."""
    history = search.work_dir / 'history.jsonl'
    most = 1000 + max(20_000, history.stat().st_size if history.exists() else 0)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(search.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def damage_newest(work_dir: Path) -> None:
    """Cut the newest checkpoint, as a file system may do when the power fails."""
    newest = work_dir / Path((work_dir / 'last_checkpoint').read_text()).name
    newest.write_bytes(newest.read_bytes()[:-1000])


def accidents(folder: Path, kills: int) -> Iterator[tuple[Accident, Callable[[Accident], dict]]]:
    """All accidents, and what runs each and judges it."""

    def killed(one: Accident) -> dict:
        _, row = one.happens(kill)
        row |= one.resumed()
        return dict(row, passed=row['exit_code'] == -9 and row['same'])

    def interrupted(number: signal.Signals) -> Callable[[Accident], dict]:
        def run(one: Accident) -> dict:
            _, row = one.happens(send(number))
            row |= one.resumed()
            good = row['exit_code'] == 130 and '; to go on: python ' in row['said']
            return dict(row, passed=good and not row['processes_left'] and row['same'])

        return run

    def without_space(one: Accident) -> dict:
        if not hasattr(resource, 'prlimit'):
            return dict(passed=None, said='not tried: only Linux limits the files of a process')
        search, row = one.happens(fill_disk)
        quiet = 'Traceback' not in search.output.read_text()
        row |= one.resumed()
        good = row['exit_code'] == 2 and row['said'].startswith('error: ') and quiet
        return dict(row, passed=good and not row['processes_left'] and row['same'])

    def damaged(one: Accident) -> dict:
        _, row = one.happens(kill)
        damage_newest(one.work_dir)
        row |= one.resumed()
        return dict(row, passed=bool(row['resumed_said']) and row['same'])

    for number in range(kills):
        phase = PHASES[number % len(PHASES)]
        task, workers = SEARCHES[(number + number // 12) % len(SEARCHES)]
        yield Accident(folder, f'kill {number + 1}', task, workers, phase), killed
    for number in (signal.SIGINT, signal.SIGTERM):
        for task in CONFIGS:
            name = f'{number.name} {task}'
            yield Accident(folder, name, task, 2, 'architecture'), interrupted(number)
    for phase in ('architecture', 'checkpoint', 'report'):
        for task in CONFIGS:
            yield Accident(folder, f'full disk {phase} {task}', task, 2, phase), without_space
    for task in CONFIGS:
        yield Accident(folder, f'damaged checkpoint {task}', task, 0, 'settling'), damaged


def main() -> None:
    """Run what has no result yet, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/crash_test')
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    folder = args.work_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = json.loads(args.out.read_text())['results'] if args.out.exists() else {}
    about = dict(command=f'python benchmarks/crash_test.py --kills {args.kills}')
    about |= dict(device=device_name('cpu'), software=software('cpu'), system=platform.system())
    prepare(folder)
    for accident, run in accidents(folder, args.kills):
        if accident.name in results:
            continue
        started = time.monotonic()
        row = run(accident)
        results[accident.name] = dict(row, seconds=round(time.monotonic() - started, 1))
        passed = {True: 'passed', False: 'FAILED', None: 'not tried'}[row['passed']]
        print(f'{accident.name} in {accident.phase}: {passed}', row, flush=True)
        counted = [one['passed'] for name, one in results.items() if name.startswith('kill')]
        summary = dict(kills=f'{sum(counted)} of {len(counted)}')
        others = [one['passed'] for name, one in results.items() if not name.startswith('kill')]
        summary |= dict(others=f'{sum(map(bool, others))} of {len(others)}')
        write_atomic(args.out, json.dumps(about | summary | dict(results=results), indent=1) + '\n')
    print(
        f'kills passed: {summary["kills"]}; others: {summary["others"]}' if results else 'nothing'
    )


if __name__ == '__main__':
    main()
