"""A search that is killed at a random moment, and other accidents: it ends as if nothing had been.

    python benchmarks/crash_test.py [--kills 20] [--work-dir work_dirs/crash_test]

Small searches, of digits and of a detector of digits, with 0 and 2 workers, run once undisturbed.
Then each is killed (-9) once per phase, at a random moment of it, and resumed to its end; Ctrl-C
and SIGTERM go to all processes of a search; a limit on the size of files stands for a full disk;
the newest checkpoint is damaged. After ``--resume`` network, history, last checkpoint and searched
weights have to be those of the undisturbed search to the bit. The result of each accident goes to
benchmarks/results/crash_test.json at once, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from crash_search import CONFIGS, PHASES, ROOT, STEPS, Search, prepare, undisturbed, whole

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.engine.files import write_atomic
from prunet_mm.timing.device import device_name, software

RESULT = ROOT / 'benchmarks/results/crash_test.json'
SEARCHES = [(task, workers) for workers in (0, 2) for task in CONFIGS]


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
