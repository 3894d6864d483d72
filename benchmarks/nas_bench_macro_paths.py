"""What a warm SuperNet of NAS-Bench-Macro thinks of random networks: a loss each.

Called by ``nas_bench_macro.py``, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from macro_space import space, to_spec

from prunet_mm.engine.checkpoint import load_from_plain_data
from prunet_mm.engine.files import write_atomic


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
    from mmengine.config import Config

    from prunet_mm import register_all_modules
    from prunet_mm.search.loop import SearchData
    from prunet_mm.search.model import ArchitectureSearch

    register_all_modules()
    work_dir = Path(args.checkpoint).parents[1]
    cfg = Config.fromfile(work_dir / 'config.py')
    cfg.model.latency.update(table=str(work_dir / 'macs_estimated.json'), budget_ratio=0.5)
    cfg.model.pop('type')
    cfg.train_dataloader.dataset.data_root = args.data_root
    cfg.train_dataloader.dataset.pipeline = cfg.test_pipeline
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance('paths', scope_name='mmpretrain')
    model = ArchitectureSearch(**cfg.model, data_preprocessor=dict(cfg.data_preprocessor,
                               type='ClsDataPreprocessor'))  # fmt: skip
    weights = load_from_plain_data(args.checkpoint)['state_dict']
    prefix = 'architecture.'
    model.architecture.load_state_dict(
        {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    )
    model.to(memory_format=torch.channels_last).train()
    data = SearchData(cfg.train_dataloader, 0.2, args.batch_size, args.seed)
    batches = data.probe('architecture', args.batches)
    rng, names = random.Random(args.seed), list(model.supernet.layers())
    codes, losses = [], []
    positions = space().positions()
    for _ in range(args.count):
        code = ''.join(rng.choice('012') for _ in names)
        path = {}
        for name, position, digit in zip(names, positions, code, strict=True):
            options = [c.name for c in position.candidates]
            options = ['skip', *options] if position.skippable else options
            path[name] = options[int(digit)]
        codes.append(code)
        losses.append(model.task_loss(batches, path))
    from macro_space import canonical
    from nas_bench_macro import tau

    truths = json.loads((work_dir / 'truth.json').read_text())
    flops = [-to_spec(code).macs() for code in codes]
    known = [truths[canonical(code)] for code in codes]
    write_atomic(args.out, json.dumps(dict(
        codes=codes, losses=losses, tau=tau(losses, known), tau_flops=tau(flops, known),
    )))  # fmt: skip


if __name__ == '__main__':
    main()
