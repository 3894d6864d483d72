r"""Retrain found networks beside others of the same predicted latency, equally.

    python benchmarks/retrain.py configs/search/prunet_digits.py configs/cls/prunet_digits.py \
        work_dirs/demo/subnet.json --seeds 3 --random 3

Every network trains from scratch by ``tools/train.py`` on the same config, once per seed; reported
is the top-1 accuracy after the last epoch. Random networks are drawn from the search config's
space until their predicted latency is within 1 % of the first found network's; uniform ones have
one depth, one kind of block and one share of all widths. Found ones may be of several searches for
the same budget. What was interrupted goes on, and ``--out`` is written after every training.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from mmengine.config import Config

from prunet_mm.engine.files import write_atomic
from prunet_mm.latency import LatencyTable
from prunet_mm.search.uniform import uniform_networks
from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 0.01


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('search_config', help='its space and latency table are used')
    parser.add_argument('train_config', help='a classifier whose backbone is a PRUNet')
    parser.add_argument('subnets', nargs='+', help='the networks that searches found')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--random', type=int, default=3, help='number of random networks')
    parser.add_argument(
        '--uniform', choices=['none', 'one', 'all'], default='none',
        help='uniformly scaled networks: of every depth and block, or the first of these',
    )  # fmt: skip
    parser.add_argument('--jobs', type=int, default=1, help='trainings that run at once')
    parser.add_argument('--work-dir', default='work_dirs/retrain')
    parser.add_argument('--out', help='write the results as JSON')
    parser.add_argument('--cfg-options', nargs='*', default=[], help='passed on to tools/train.py')
    return parser.parse_args()


def random_networks(
    space: SearchSpace, table: LatencyTable, target_ms: float, count: int
) -> list[NetworkSpec]:
    """Draw networks whose predicted latency is within `TOLERANCE` of ``target_ms``."""
    rng, found = random.Random(0), []
    while len(found) < count:
        spec = space.random(rng)
        if abs(table.predict_ms(spec) / target_ms - 1) <= TOLERANCE:
            found.append(spec)
    return found


def train(config: str, subnet: Path, seed: int, work_dir: Path, options: list[str]) -> float:
    """Train one network with one seed, if that is still to be done; return its top-1 in percent."""
    asked = json.dumps([config, seed, options, NetworkSpec.load(subnet).to_dict()])
    note, done = work_dir / 'asked.json', work_dir / 'top1.json'
    if not note.exists() or note.read_text() != asked:  # of another network, from an earlier run
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        write_atomic(note, asked)
    if not done.exists():
        resume = ['--resume'] if (work_dir / 'last_checkpoint').exists() else []
        command = [sys.executable, 'tools/train.py', config, '--work-dir', str(work_dir), *resume]
        command += ['--cfg-options', f'model.backbone.arch={subnet}', f'randomness.seed={seed}']
        with (work_dir / 'log.txt').open('w') as log:
            subprocess.run(command + options, cwd=ROOT, stdout=log, stderr=log, check=True)
        scalars = max(work_dir.glob('*/vis_data/scalars.json'))
        rows = [json.loads(line) for line in scalars.read_text().splitlines()]
        top1 = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row][-1]
        write_atomic(done, json.dumps(top1))
        for checkpoint in work_dir.glob('*.pth'):  # of a hundred trainings, they fill a disk
            checkpoint.unlink()
    return json.loads(done.read_text())


def file_name(network: str) -> str:
    """The name of a network's files."""
    return network.replace(' ', '_')


def main() -> None:
    """Draw, train, print and write."""
    args = parse_args()
    cfg = Config.fromfile(args.search_config)
    space, table = SearchSpace.from_dict(cfg.space), LatencyTable.load(cfg.model.latency.table)
    found = [NetworkSpec.load(path) for path in args.subnets]
    target_ms = table.predict_ms(found[0])
    networks = dict(zip(names('found', found), found, strict=True))
    drawn = random_networks(space, table, target_ms, args.random)
    networks |= dict(zip(names('random', drawn), drawn, strict=True))
    uniform = uniform_networks(space, table, target_ms)
    count = dict(none=0, one=1, all=len(uniform))[args.uniform]
    networks |= {f'uniform {name}': spec for name, spec in list(uniform.items())[:count]}
    work_dir = Path(args.work_dir).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    for name, spec in networks.items():
        spec.save(work_dir / f'{file_name(name)}.json')
    begin, top1, lock = time.time(), {}, Lock()

    def one(run: tuple[str, int]) -> None:
        name, seed = run
        stem = work_dir / file_name(name)
        score = train(
            args.train_config, stem.with_suffix('.json'), seed,
            Path(f'{stem}_seed{seed}'), args.cfg_options,
        )  # fmt: skip
        with lock:
            top1.setdefault(name, {})[seed] = score
            records = [record(name, networks[name], table, top1[name]) for name in top1]
            report = dict(
                command=sys.argv,
                table=table.describe(),
                python=platform.python_version(),
                minutes=(time.time() - begin) / 60,
                networks=records,
            )
            if args.out:
                write_atomic(args.out, json.dumps(report, indent=2) + '\n')
            print(f'{name:22} seed {seed}: top-1 {score:.2f} %', flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, [(name, seed) for seed in range(args.seeds) for name in networks]))
    for name, spec in networks.items():
        row = record(name, spec, table, top1[name])
        print(
            f'{name:22} {row["predicted_ms"]:.3f} ms predicted, {row["params"]:9,} parameters, '
            f'top-1 {row["mean"]:.2f} % ({", ".join(f"{value:.2f}" for value in row["top1"])})'
        )


def names(kind: str, specs: list[NetworkSpec]) -> list[str]:
    """Names of some networks of a kind."""
    return [f'{kind}{number}' for number in range(1, len(specs) + 1)]


def record(name: str, spec: NetworkSpec, table: LatencyTable, top1: dict[int, float]) -> dict:
    """What is reported of a network, with the accuracies that there are, by seed."""
    values = [top1[seed] for seed in sorted(top1)]
    return dict(
        network=name,
        predicted_ms=table.predict_ms(spec),
        params=spec.params(),
        macs=spec.macs(),
        top1=values,
        mean=statistics.mean(values),
        stdev=statistics.stdev(values) if len(values) > 1 else None,
    )


if __name__ == '__main__':
    main()
