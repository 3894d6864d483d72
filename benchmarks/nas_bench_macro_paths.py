"""What a warm SuperNet of NAS-Bench-Macro thinks of random networks: a loss each.

Called by ``nas_bench_macro.py``, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from macro_space import canonical, space, to_spec
from mmengine.config import Config
from mmengine.registry import DefaultScope
from nas_bench_macro import tau

from prunet_mm import register_all_modules
from prunet_mm.engine.checkpoint import load_from_plain_data
from prunet_mm.engine.files import write_atomic
from prunet_mm.search.loop import SearchData
from prunet_mm.search.model import ArchitectureSearch
from prunet_mm.supernet.stochastic_layer import SKIP

PREFIX = 'architecture.'


def main() -> None:
    """Judge random paths on images of the architecture's part, with these images' own norms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint')
    parser.add_argument('out')
    parser.add_argument('--data-root', required=True)
    parser.add_argument('--count', type=int, required=True)
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('--batches', type=int, default=4)
    parser.add_argument('--batch-size', type=int, default=160)
    args = parser.parse_args()
    torch.set_num_threads(1)
    register_all_modules()
    DefaultScope.get_instance('paths', scope_name='mmpretrain')
    work_dir = Path(args.checkpoint).parents[1]
    cfg = Config.fromfile(work_dir / 'config.py')
    model = load(cfg, args.checkpoint, work_dir / 'macs_estimated.json')
    cfg.train_dataloader.dataset.update(data_root=args.data_root, pipeline=cfg.test_pipeline)
    data = SearchData(cfg.train_dataloader, 0.2, args.batch_size, args.seed)
    batches = data.probe('architecture', args.batches)
    rng = random.Random(args.seed)
    codes = [''.join(rng.choice('012') for _ in space().positions()) for _ in range(args.count)]
    losses = [model.task_loss(batches, to_path(code)) for code in codes]
    truths = json.loads((work_dir / 'truth.json').read_text())
    known = [truths[canonical(code)] for code in codes]
    by_flops = tau([-to_spec(code).macs() for code in codes], known)
    found = dict(codes=codes, losses=losses, tau=tau(losses, known), tau_flops=by_flops)
    write_atomic(args.out, json.dumps(found))


def load(cfg: Config, checkpoint: str, table: Path) -> ArchitectureSearch:
    """The SuperNet of a checkpoint, in training mode."""
    options = dict(cfg.model)
    options.pop('type')
    options['latency'] = dict(options['latency'], table=str(table), budget_ratio=0.5)
    preprocessor = dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    model = ArchitectureSearch(**options, data_preprocessor=preprocessor)
    weights = load_from_plain_data(checkpoint)['state_dict']
    own = {key[len(PREFIX) :]: value for key, value in weights.items() if key.startswith(PREFIX)}
    model.architecture.load_state_dict(own)
    return model.to(memory_format=torch.channels_last).train()


def to_path(code: str) -> dict[str, str]:
    """The choices of a code, by layer."""
    path = {}
    for digit, position in zip(code, space().positions(), strict=True):
        options = [candidate.name for candidate in position.candidates]
        path[position.name] = ([SKIP] * position.skippable + options)[int(digit)]
    return path


if __name__ == '__main__':
    main()
