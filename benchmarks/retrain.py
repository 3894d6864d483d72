r"""Retrain a found network beside others of the same predicted latency, equally.

    python benchmarks/retrain.py configs/search/prunet_digits.py configs/cls/prunet_digits.py \
        work_dirs/demo/subnet.json --seeds 3 --random 3

Every network trains from scratch by ``tools/train.py`` on the same config, once per seed; reported
is the top-1 accuracy after the last epoch. Random networks are drawn from the search config's
space until their predicted latency is within 1 % of the found network's; uniform ones have one
depth, one kind of block and one share of all widths.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    parser.add_argument('subnet', help='the network that the search found')
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
    """Train one network with one seed; return its top-1 accuracy in percent."""
    command = [sys.executable, 'tools/train.py', config, '--work-dir', str(work_dir)]
    command += ['--cfg-options', f'model.backbone.arch={subnet}', f'randomness.seed={seed}']
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / 'log.txt').open('w') as log:
        subprocess.run(command + options, cwd=ROOT, stdout=log, stderr=log, check=True)
    scalars = max(work_dir.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row][-1]


def file_name(network: str) -> str:
    """The name of a network's files."""
    return network.replace(' ', '_')


def main() -> None:
    """Draw, train, print and write."""
    args = parse_args()
    cfg = Config.fromfile(args.search_config)
    space, table = SearchSpace.from_dict(cfg.space), LatencyTable.load(cfg.model.latency.table)
    found = NetworkSpec.load(args.subnet)
    networks = dict(found=found)
    for number, spec in enumerate(
        random_networks(space, table, table.predict_ms(found), args.random), start=1
    ):
        networks[f'random{number}'] = spec
    uniform = uniform_networks(space, table, table.predict_ms(found))
    count = dict(none=0, one=1, all=len(uniform))[args.uniform]
    networks |= {f'uniform {name}': spec for name, spec in list(uniform.items())[:count]}
    work_dir = Path(args.work_dir).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    for name, spec in networks.items():
        spec.save(work_dir / f'{file_name(name)}.json')
    start = time.time()
    runs = [(name, seed) for seed in range(args.seeds) for name in networks]
    with ThreadPoolExecutor(args.jobs) as pool:
        scores = pool.map(
            lambda run: train(
                args.train_config,
                work_dir / f'{file_name(run[0])}.json',
                run[1],
                work_dir / f'{file_name(run[0])}_seed{run[1]}',
                args.cfg_options,
            ),
            runs,
        )
        top1 = dict(zip(runs, scores, strict=True))
    records = []
    for name, spec in networks.items():
        values = [top1[name, seed] for seed in range(args.seeds)]
        records.append(
            dict(
                network=name,
                predicted_ms=table.predict_ms(spec),
                params=spec.params(),
                macs=spec.macs(),
                top1=values,
                mean=statistics.mean(values),
                stdev=statistics.stdev(values) if len(values) > 1 else None,
            )
        )
        print(
            f'{name:22} {records[-1]["predicted_ms"]:.3f} ms predicted, '
            f'{spec.params():9,} parameters, top-1 {records[-1]["mean"]:.2f} % '
            f'({", ".join(f"{value:.2f}" for value in values)})'
        )
    report = dict(
        command=sys.argv,
        table=table.describe(),
        python=platform.python_version(),
        minutes=(time.time() - start) / 60,
        networks=records,
    )
    if args.out:
        write_atomic(args.out, json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
