"""Search in NAS-Bench-Macro, where every network's accuracy is known, and judge what is found.

    python benchmarks/nas_bench_macro.py TRUTH.json --data-root data/cifar10 --jobs 2

Per seed a SuperNet is warmed up once; from its weights one search per kind of cost finds a network
for every budget (a share of the largest network's cost), as with ``--latency-targets-ms``. Beside
the networks found stand, at the same budgets, random networks, the best of ten of them, all-``1``,
an exact choice by the accuracies of the 17 networks that differ from the largest in one layer, and
the strongest cheap baseline: an additive ridge fit to the losses of 200 random paths of the same
SuperNet, with an exact choice. What was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
from macro_space import SPACE, canonical, space, to_code, to_spec, truth
from scipy.stats import kendalltau

from prunet_mm.engine.files import write_atomic
from prunet_mm.latency import LatencyTable
from prunet_mm.spec import NetworkSpec

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'benchmarks/configs/nas_bench_macro.py'
BUDGETS = (0.3, 0.4, 0.5, 0.6, 0.7)
BAND = 0.05  # networks that cost up to 5 % less than the budget are compared with


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('truth', help="the benchmark's nas-bench-macro_cifar10.json")
    parser.add_argument('--data-root', default='data/cifar10', help='CIFAR-10 in class folders')
    parser.add_argument('--cost', nargs='+', default=['flops'], choices=['flops', 'latency'])
    parser.add_argument('--table', help='latency table of the space, for --cost latency')
    parser.add_argument('--budgets', nargs='+', type=float, default=BUDGETS)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--warmup', type=int, default=2600, help='iterations of the warm-up')
    parser.add_argument('--iterations', type=int, default=200, help='iterations of a search')
    parser.add_argument('--paths', type=int, default=200, help='random paths of the baseline')
    parser.add_argument('--jobs', type=int, default=1, help='processes at once')
    parser.add_argument('--work-dir', default='work_dirs/nas_bench_macro')
    parser.add_argument('--out', default='benchmarks/results/nas_bench_macro.json')
    parser.add_argument('--name', default='', help='of a variant; goes into work dirs and rows')
    parser.add_argument('--cfg-options', nargs='*', default=[], help='of the searches')
    return parser.parse_args()


def main() -> None:
    """Warm up, search, compare."""
    args = parse_args()
    accuracy = truth(args.truth)
    work_dir = Path(args.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    tables = {'flops': flops_table(work_dir)}
    if args.table:
        tables['latency'] = Path(args.table)
    write_atomic(work_dir / 'truth.json', json.dumps(accuracy))
    config = (
        f"_base_ = ['{CONFIG}']\nspace = {SPACE!r}\n"
        'model = dict(architecture=dict(backbone=dict(space=space)))\n'
    )
    write_atomic(work_dir / 'config.py', config)
    write_atomic(work_dir / 'warm.py', f"{config}custom_hooks = [dict(type='SearchStateHook')]\n")
    with ThreadPoolExecutor(args.jobs) as pool:
        for _ in pool.map(lambda seed: one_seed(args, seed, tables, accuracy), args.seeds):
            pass


def one_seed(args, seed: int, tables: dict[str, Path], accuracy: dict[str, float]) -> None:
    """Do all of a seed, and add its rows to the results."""
    work_dir = Path(args.work_dir)
    warm = warm_up(args, seed, tables['flops'])
    judged = work_dir / f'paths_{seed}.json'
    if not judged.exists():
        run([sys.executable, ROOT / 'benchmarks/nas_bench_macro_paths.py', warm, judged,
             '--data-root', args.data_root, '--count', args.paths, '--seed', seed])  # fmt: skip
    losses = json.loads(judged.read_text())
    for cost in args.cost:
        table = LatencyTable.load(tables[cost])
        costs = {code: table.predict_ms(to_spec(code)) for code in accuracy}
        targets = [share * max(costs.values()) for share in sorted(args.budgets)]
        out = work_dir / f'{cost}_{seed}{args.name and f"_{args.name}"}'
        began, log = time.time(), out / 'seconds.json'
        search(args, seed, tables[cost], warm, targets, out)
        spent = json.loads(log.read_text()) if log.exists() else time.time() - began
        write_atomic(log, json.dumps(spent))
        rows = [
            compare(args, cost, seed, share, target, out, costs, accuracy, losses, spent)
            for share, target in zip(sorted(args.budgets), targets, strict=True)
        ]
        add(Path(args.out), rows)
        for row in rows:
            print(json.dumps(row), flush=True)


def warm_up(args, seed: int, table: Path) -> Path:
    """Train the weights of the SuperNet on random paths; return the checkpoint."""
    work_dir = Path(args.work_dir) / f'warm_{seed}'
    checkpoint = work_dir / f'iter_{args.warmup + 1}.pth'
    if not checkpoint.exists():
        tool(args, 'warm.py', seed, table, work_dir, [
            f'train_cfg.max_iters={args.warmup + 1}',  # the last one on the architecture
            f'train_cfg.warmup_iters={args.warmup}',
            'model.latency.budget_ratio=0.5',
            'default_hooks.checkpoint.interval=500',
            'default_hooks.checkpoint.max_keep_ckpts=-1',
        ])  # fmt: skip
    return checkpoint


def search(args, seed: int, table: Path, warm: Path, targets: list[float], out: Path) -> None:
    """Search from warm weights, all budgets in one run."""
    if (out / 'subnet.json').exists():
        return
    starts = {'backbone': 'architecture.backbone', 'neck': 'architecture.neck',
              'head': 'architecture.head'}  # fmt: skip
    options = [
        f"model.architecture.{part}.init_cfg={{'type': 'Pretrained', 'checkpoint': '{warm}', "
        f"'prefix': '{prefix}.'}}"
        for part, prefix in starts.items()
    ]
    tool(args, 'config.py', seed, table, out, [
        *options,
        f'train_cfg.max_iters={args.iterations}',
        'train_cfg.warmup_iters=0',
        'optim_wrapper.weights.optimizer.lr=0.01',
        f'model.latency.targets_ms=[{",".join(map(str, targets))}]',
        *args.cfg_options,
    ])  # fmt: skip


def tool(args, config: str, seed: int, table: Path, work_dir: Path, options: list[str]) -> None:
    """Run ``tools/search.py`` to its end, from where it was interrupted."""
    resume = ['--resume'] if (work_dir / 'last_checkpoint').exists() else []
    if not resume and (work_dir / 'history.jsonl').exists():
        (work_dir / 'history.jsonl').unlink()  # killed before its first checkpoint
    run([sys.executable, ROOT / 'tools/search.py', Path(args.work_dir) / config, '--seed', seed,
         '--work-dir', work_dir, *resume, '--cfg-options', f'model.latency.table={table}',
         f'train_dataloader.dataset.data_root={args.data_root}', *options])  # fmt: skip


def run(command: list) -> None:
    """Run a process; what it prints goes to the log of its own."""
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def compare(args, cost, seed, share, target, out, costs, accuracy, losses, seconds) -> dict:
    """A row of the results: what was found for one budget, and what stands beside it."""
    spec = NetworkSpec.load(out / f'subnet_{target:g}ms.json')
    code = to_code(spec)
    able = {code: value for code, value in accuracy.items() if costs[code] <= target * (1 + 1e-9)}
    near = [value for code, value in able.items() if costs[code] >= (1 - BAND) * target]
    best = max(able.values())
    rng = random.Random(0)
    tens = [max(rng.sample(near, min(10, len(near)))) for _ in range(500)]
    fit = additive(losses['codes'], losses['losses'])
    ridge = min(able, key=fit)
    ones = '1' * 8
    by_change = one_change(accuracy)
    changed = max(able, key=by_change)
    found = accuracy[code]
    return dict(
        cost=cost,
        budget=share,
        seed=seed,
        variant=args.name,
        code=code,
        cost_share=costs[code] / target,
        accuracy=found,
        regret=best - found,
        rank=sum(value > found for value in near) + 1,
        of=len(near),
        random_mean=statistics.mean(near),
        best_of_10_random=statistics.mean(tens),
        all_ones=accuracy[ones] if ones in able else None,
        one_change_regret=best - accuracy[changed],
        ridge_code=ridge,
        ridge_regret=best - accuracy[ridge],
        tau=losses['tau'],
        tau_flops=losses['tau_flops'],
        iterations=args.iterations,
        warmup=args.warmup,
        seconds=round(seconds, 1),
        date=date.today().isoformat(),
    )


def one_hot(code: str) -> np.ndarray:
    """The choices of a code, (24,)."""
    return np.eye(3)[list(map(int, code))].ravel()


def additive(codes: list[str], losses: list[float], ridge: float = 1e-3):
    """Fit a sum over layers to some losses; returns it as a function of a code."""
    rows = np.stack([one_hot(code) for code in codes])
    centred, target = rows - rows.mean(0), np.array(losses) - np.mean(losses)
    weights = np.linalg.solve(
        centred.T @ centred + ridge * len(codes) * np.eye(24), centred.T @ target
    )
    return lambda code: float(one_hot(code) @ weights)


def one_change(accuracy: dict[str, float]):
    """The additive score by the networks that differ from the largest in one layer."""
    largest = '2' * 8
    change = {
        (layer, digit): accuracy[canonical(f'{largest[:layer]}{digit}{largest[layer + 1 :]}')]
        - accuracy[largest]
        for layer in range(8)
        for digit in '012'
    }
    return lambda code: sum(change[layer, digit] for layer, digit in enumerate(code))


def flops_table(work_dir: Path) -> Path:
    """Write the table in which a ms stands for a million multiply-accumulates."""
    path = work_dir / 'macs_estimated.json'
    entries = [
        dict(
            {field: value for field, value in key._asdict().items() if value is not None},
            latency_ms=key.macs() / 1e6, iqr_ms=0.0, samples=0,
        )
        for key in space().block_keys()
    ]  # fmt: skip
    LatencyTable.from_dict(dict(
        schema_version=1, kind='estimated', device='counted, a ms for a million MACs',
        backend='none', dtype='float32', batch=64, threads=1, software={}, date='2026-11-26',
        protocol={}, entries=entries,
    )).save(path)  # fmt: skip
    return path


def add(path: Path, rows: list[dict]) -> None:
    """Put rows into the results in place of those of the same search."""

    def key(row):
        return row['cost'], row['seed'], row['budget'], row['variant']

    old = json.loads(path.read_text()) if path.exists() else []
    known = {key(row): row for row in old} | {key(row): row for row in rows}
    write_atomic(path, json.dumps([known[k] for k in sorted(known)], indent=1) + '\n')


def tau(losses: list[float], truths: list[float]) -> float:
    """Kendall's rank correlation of losses with accuracies, positive where they agree."""
    return -float(kendalltau(losses, truths).statistic)


if __name__ == '__main__':
    main()
