"""Does what a search ends in take the milliseconds that were asked for? Ten searches, measured.

    python benchmarks/latency_promise.py [--only digits] [--runs 1]

Three configs, several seeds, some with another process computing on a second core while the network
is measured. Each search is that of tools/search.py and measures, corrects and reports its network
itself; a row is what its subnet.json says. Of several roundings a search keeps the one that was
measured nearest to the budget, by luck in part: so each network is measured once more. Tables are
built by tools/build_latency_table.py, one per config. What is there already is not run again:
interrupt it when you like, and give the same command. Needs an idle machine. Rows go to
benchmarks/results/latency_promise.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from prunet_mm.engine.files import write_atomic
from prunet_mm.engine.process import in_a_process
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.promise import keep
from prunet_mm.search.finish import SECONDS
from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/latency_promise.json'
FOLDER = Path('work_dirs/latency_promise')
CONFIGS = {
    'digits': 'configs/search/prunet_digits.py',
    'cifar10': 'configs/search/prunet_cifar10.py',
    'digits_det': 'configs/search/prunet_digits_det.py',
}
BARS = dict(off=0.03, over=0.01, of_ten=9)


class Run(NamedTuple):
    """One search: a key of `CONFIGS`, its seed, and whether another process computes meanwhile."""

    config: str
    seed: int
    busy: bool

    @property
    def work_dir(self) -> Path:
        """Where it goes."""
        return FOLDER / f'{self.config}_{self.seed}{"_busy" * self.busy}'


RUNS = [
    *(Run('digits', seed, seed > 2) for seed in range(4)),
    *(Run('cifar10', seed, seed > 1) for seed in range(3)),
    *(Run('digits_det', seed, seed > 1) for seed in range(3)),
]


@contextlib.contextmanager
def company(busy: bool) -> Iterator[None]:
    """Another process that computes, if so asked."""
    if not busy:
        yield
        return
    code = 'import numpy as n\na = n.ones((512, 512))\nwhile True: a = a @ a / 512'
    other = subprocess.Popen([sys.executable, '-c', code])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def table(config: str, max_seconds: float | None) -> Path:
    """The latency table of a config, built unless it is there."""
    path = FOLDER / f'{config}.json'
    if not (ROOT / path).exists():
        seconds = ['--max-seconds', str(max_seconds)] if max_seconds else []
        command('build_latency_table', CONFIGS[config], '--out', path, *seconds)
    return path


def command(tool: str, *args: object) -> None:
    """Runs a tool, as one would type it."""
    argv = [sys.executable, f'tools/{tool}.py', *map(str, args)]
    if code := subprocess.run(argv, cwd=ROOT).returncode:
        raise SystemExit(f'{tool} ended with code {code}; the same command goes on from there')


def search(run: Run, args: argparse.Namespace) -> dict:
    """The row of a search, which is run unless it has ended before."""
    subnet = ROOT / run.work_dir / 'subnet.json'
    done = ROOT / run.work_dir / 'found.json'
    path = table(run.config, args.table_seconds)
    if not done.exists():
        options = [f'model.latency.table={path}']
        if args.max_iters:
            options += [
                f'train_cfg.max_iters={args.max_iters}',
                f'train_cfg.warmup_iters={args.max_iters // 5}',
            ]
        begun = (ROOT / run.work_dir / 'last_checkpoint').exists()
        if not begun:  # ended before its first checkpoint
            shutil.rmtree(ROOT / run.work_dir, ignore_errors=True)
        with company(run.busy):
            command(
                *('search', CONFIGS[run.config], '--seed', run.seed, '--work-dir', run.work_dir),
                *(['--resume'] if begun else []),
                *('--cfg-options', *options),
            )
    told = json.loads(subnet.read_text())['provenance']
    kept = told.get('measured')
    if kept is None:
        raise SystemExit(f'{subnet}: was not measured; see the log of the search')
    return dict(
        config=CONFIGS[run.config],
        max_iters=args.max_iters,
        latency=told['latency'],
        seed=run.seed,
        budget_ms=told['budget_ms'],
        predicted_ms=told['predicted_ms'],
        measured_ms=kept['measured_ms'],
        at_table_state_ms=kept['at_table_state_ms'],
        interval_ms=kept['interval_ms'],
        busy=run.busy,
        state=kept['state'],
        waited=kept['waited'],
        table_rescaled_by=told['table_rescaled_by'],
        granules=json.loads(done.read_text())['granules'],
        again_ms=again_ms(run, path),
    )


def again_ms(run: Run, path: Path) -> float:
    """What a search's network takes at its table's state, measured anew, if it was not yet."""
    said, out = ROOT / run.work_dir / 'subnet.json', ROOT / run.work_dir / 'again.json'
    if not out.exists():
        table, spec = LatencyTable.load(ROOT / path), NetworkSpec.load(said)
        space = SearchSpace.from_dict(Config.fromfile(ROOT / CONFIGS[run.config]).space.to_dict())
        predicted_ms = [spec.provenance['predicted_ms']]
        with company(run.busy):
            (promise,) = in_a_process(keep, table, space, [spec], 'cpu', predicted_ms, SECONDS)
        write_atomic(out, json.dumps(promise.to_dict()))
    return json.loads(out.read_text())['at_table_state_ms']


def verdict(rows: list[dict], measured: str = 'again_ms') -> str:
    """The numbers to reach, and what was reached, by a measurement."""
    off = [row[measured] / row['predicted_ms'] - 1 for row in rows]
    over = [row[measured] / row['budget_ms'] - 1 for row in rows]
    kept = sum(abs(one) <= BARS['off'] for one in off)
    return (
        f'within {BARS["off"]:.0%} of the prediction: {kept} of {len(rows)} '
        f'({min(off):+.1%} to {max(off):+.1%}); against the budget {min(over):+.1%} to '
        f'{max(over):+.1%}, allowed is {BARS["over"]:+.0%}'
    )


def main() -> None:
    """Run what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=CONFIGS, help='the searches of one config')
    parser.add_argument('--runs', type=int, help='so many of them, the first ones')
    parser.add_argument('--max-iters', type=int, help='steps of a search; by default the configs')
    parser.add_argument('--table-seconds', type=float, help='at most, for a table')
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    runs = [run for run in RUNS if args.only in (None, run.config)][: args.runs]
    rows = {key(row): row for row in earlier(args.out)}
    for run in runs:
        row = search(run, args)
        rows[key(row)] = row
        print({name: row[name] for name in ('config', 'seed', 'busy')}, flush=True)
        for measured in ('at_table_state_ms', 'again_ms'):
            known = [row for row in rows.values() if measured in row]
            print(measured, verdict(known, measured), flush=True)
        write_atomic(args.out, json.dumps(dict(bars=BARS, rows=[*rows.values()]), indent=1) + '\n')


def earlier(path: Path) -> list[dict]:
    """The rows that are there already, of other configs, too."""
    return json.loads(path.read_text())['rows'] if path.exists() else []


def key(row: dict) -> tuple[str, int, bool]:
    """Which search a row is of."""
    return row['config'], row['seed'], row['busy']


if __name__ == '__main__':
    main()
