r"""Shrink a trained EfficientNet-Lite0 in several ways and fine-tune what comes out, equally.

    python benchmarks/shrink_cifar10.py --data-root data/cifar10 --budgets 0.35 0.5 0.7 --seeds 3

Needs ``work_dirs/lite0/lite0.pth`` (tools/model_converters/timm_to_prunet.py) and the latency table
of ``configs/search/lite0_cifar10.py``. First Lite0 is fine-tuned; all others start from that. Each
network is chosen by ``tools/search.py``, by its search or one of its rules, takes the trained
weights, not those of the search, and is fine-tuned by ``tools/train.py``. It is timed in one run
with the network that it came from. A row is written as soon as it is known, and what is there
already is not done again; an interrupted search or training goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

from prunet_mm.engine.files import write_atomic
from prunet_mm.engine.process import in_a_process
from prunet_mm.latency import LatencyTable
from prunet_mm.latency.promise import Promise, keep
from prunet_mm.search.record import training_options
from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).resolve().parents[1]
METHODS = ('unpruned', 'found', 'uniform', 'taylor', 'lana', 'random')
MEASURE_S = 30.0  # at most, for the networks of a run
DRAWS = 5  # random networks per budget; the best of them counts
TRAIN, SEARCH = ROOT / 'configs/cls/lite0_cifar10.py', ROOT / 'configs/search/lite0_cifar10.py'


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data-root', default='data/cifar10', help='folders train and test')
    parser.add_argument('--weights', default='work_dirs/lite0/lite0.pth', help="ImageNet's")
    parser.add_argument('--table', default='work_dirs/tables/lite0_cifar10_cpu.json')
    parser.add_argument('--base', help='Lite0, fine-tuned; by default it is made')
    parser.add_argument('--methods', nargs='+', default=METHODS, choices=METHODS)
    parser.add_argument('--budgets', nargs='+', type=float, default=[0.35, 0.5, 0.7])
    parser.add_argument('--seeds', type=int, default=1)
    parser.add_argument('--every', type=int, default=1, help='train on every so many-th image')
    parser.add_argument('--test-every', type=int, default=1, help='likewise, for the tests')
    parser.add_argument('--base-epochs', type=int, default=2)
    parser.add_argument('--epochs', type=int, default=1, help='of every fine-tuning')
    parser.add_argument('--steps', type=int, default=260, help='of the search')
    parser.add_argument(
        '--measure', action='store_true',
        help='make no rows: time the networks of those that are there again, all in one run',
    )  # fmt: skip
    parser.add_argument('--work-dir', default='work_dirs/shrink_cifar10')
    parser.add_argument('--out', default='benchmarks/results/shrink_cifar10.json')
    return parser.parse_args()


def jobs(args: argparse.Namespace) -> list[tuple[str, float, int]]:
    """Method, budget and seed of every row, in the order in which they are made.

    All methods at the first two budgets come first. The seed of a random network is which it is.
    """
    rows = []
    for seed in range(args.seeds):
        for budgets in (args.budgets[:2], args.budgets[2:]):
            for method, budget in itertools.product(args.methods, budgets):
                if method == 'unpruned':
                    rows.append((method, 1.0, seed))
                elif method != 'random':
                    rows.append((method, budget, seed))
                elif seed == 0:
                    rows += [(method, budget, draw) for draw in range(DRAWS)]
    return list(dict.fromkeys(rows))


class Bench:
    """Runs the tools on configs of its own, which hold the images and paths."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, Path(args.work_dir).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.base = Path(args.base or self.work / f'base/epoch_{args.base_epochs}.pth').resolve()
        self.table = LatencyTable.load(args.table)
        data = {
            part: f'dict(dataset=dict(data_root={str(Path(args.data_root).resolve())!r}, '
            f'indices=list(range(0, {count}, {every}))))'
            for part, count, every in (
                ('train', 50_000, args.every), ('test', 10_000, args.test_every)
            )
        }  # fmt: skip
        start = dict(init_cfg=dict(checkpoint=str(Path(args.weights).resolve())))
        train = dict(backbone=start, neck=start)
        trained = dict(init_cfg=dict(checkpoint=str(self.base)))
        parts = dict(backbone=trained, neck=trained, head=trained)
        search = dict(architecture=parts, latency=dict(table=str(Path(args.table).resolve())))
        for name, base, model in (('train', TRAIN, train), ('search', SEARCH, search)):
            text = (
                f'_base_ = [{str(base)!r}]\ntrain_dataloader = {data["train"]}\nmodel = {model}\n'
            )
            if name == 'train':
                text += f'val_dataloader = test_dataloader = {data["test"]}\n'
            write_atomic(self.work / f'{name}.py', text)

    def run(self, tool: str, *arguments: object, log: Path) -> None:
        """Run a tool to its end; its output goes to a file."""
        command = [sys.executable, f'tools/{tool}.py', *map(str, arguments)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a') as out:
            if subprocess.run(command, cwd=ROOT, stdout=out, stderr=out, check=False).returncode:
                *_, last = ['', *log.read_text().splitlines()]
                sys.exit(f'{last}\n{" ".join(command)} has failed, see {log}')

    def train(self, folder: Path, epochs: int, seed: int, *options: str) -> float:
        """Train, or go on with it; returns top-1 in percent."""
        options = f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}', *options
        self.run(
            'train', self.work / 'train.py', '--work-dir', folder, '--resume', '--cfg-options',
            f'randomness.seed={seed}', *options, log=folder.with_suffix('.log'),
        )  # fmt: skip
        rows = [
            json.loads(line)
            for path in sorted(folder.glob('*/vis_data/scalars.json'))
            for line in path.read_text().splitlines()
        ]
        return [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row][-1]

    def make_base(self) -> None:
        """Fine-tune Lite0, from which all start."""
        if not self.base.exists():
            self.train(self.work / 'base', self.args.base_epochs, seed=0)

    def choose(self, method: str, budget: float, seed: int, folder: Path) -> Path:
        """Have a network chosen; returns where it is, with the trained network's weights."""
        options = ['--seed', seed, '--cfg-options', f'model.latency.budget_ratio={budget}']
        config = self.work / 'search.py'
        rule = method
        if method == 'found':
            found = folder / 'search'
            if not (found / 'searched.pth').exists():
                self.run(
                    'search', config, '--work-dir', found, '--resume', *options,
                    f'train_cfg.max_iters={self.args.steps}', log=folder / 'search.log',
                )  # fmt: skip
            rule = found / 'searched.pth'
        cut = folder / 'cut'
        if not (cut / 'searched.pth').exists():
            self.run(
                'search', config, '--rule', rule, '--work-dir', cut, *options,
                log=folder / 'cut.log',
            )  # fmt: skip
        return cut

    def row(self, method: str, budget: float, seed: int) -> dict:
        """Choose, fine-tune and measure a network."""
        folder = self.work / f'{method}_{budget:g}_{seed}'
        if method == 'unpruned':
            own = f'checkpoint={self.base}'
            options = [f'model.{part}.init_cfg.{own}' for part in ('backbone', 'neck', 'head')]
            options += [
                'model.head.init_cfg.type=Pretrained',
                'model.head.init_cfg.prefix=head.',
            ]
            spec = self.origin
        else:
            cut = self.choose(method, budget, seed, folder)
            spec = NetworkSpec.load(cut / 'subnet.json')
            options = training_options(cut, ('neck', 'head'))
        top1 = self.train(folder / 'train', self.args.epochs, seed, *options)
        timings = self.time([spec, self.origin])
        return dict(
            method=method,
            budget=budget,
            seed=seed,
            top1=top1,
            latency_ms=timings[0].measured_ms,
            reference_ms=timings[1].measured_ms,
            spec=spec.to_dict(),
            protocol={
                name: getattr(self.args, name)
                for name in ('every', 'test_every', 'base_epochs', 'epochs', 'steps')
            },
        )

    def measure(self, rows: list[dict]) -> None:
        """Time the networks of rows again, beside Lite0, when the machine is idle."""
        specs = [NetworkSpec.from_dict(row['spec']) for row in rows]
        timings = self.time([*specs, self.origin])
        for row, timing in zip(rows, timings, strict=False):
            row.update(latency_ms=timing.measured_ms, reference_ms=timings[-1].measured_ms)

    def time(self, specs: list[NetworkSpec]) -> list[Promise]:
        """Measure networks, in one run."""
        predicted_ms = list(map(self.table.predict_ms, specs))
        return in_a_process(keep, self.table, self.space, specs, 'cpu', predicted_ms, MEASURE_S)

    @property
    def space(self) -> SearchSpace:
        """The one around Lite0."""
        cfg = Config.fromfile(self.work / 'search.py')
        return SearchSpace.from_dict(cfg.model.architecture.backbone.space.to_dict())

    @property
    def origin(self) -> NetworkSpec:
        """Lite0 as it is here: 64 px, ten classes."""
        return self.space.origin


def show(rows: list[dict]) -> None:
    """Print rows as a table."""
    for row in rows:
        print(
            f'{row["method"]:9} {row["budget"]:4g} seed {row["seed"]}: top-1 {row["top1"]:5.2f} %, '
            f'{row["latency_ms"]:8.3f} ms, {row["latency_ms"] / row["reference_ms"]:6.1%} of Lite0',
            flush=True,
        )


def main() -> None:
    """Make the rows that are missing."""
    args = parse_args()
    out = Path(args.out)
    rows = json.loads(out.read_text()) if out.exists() else []
    bench = Bench(args)
    if args.measure:
        bench.measure(rows)
        write_atomic(out, json.dumps(rows, indent=1) + '\n')
        show(rows)
        return
    bench.make_base()
    for job in jobs(args):
        if job in [(row['method'], row['budget'], row['seed']) for row in rows]:
            continue
        rows.append(bench.row(*job))
        write_atomic(out, json.dumps(rows, indent=1) + '\n')
        show(rows[-1:])
    print('\nall rows')
    show(rows)


if __name__ == '__main__':
    main()
