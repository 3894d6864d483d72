"""What a search iteration costs, whatever the number of candidates.

    python benchmarks/iteration_cost.py [--rounds 15] [--out benchmarks/results/iteration_cost.json]

An iteration is a step on the weights and one on the architecture; the measure is two training
steps of the space's widest network on batches of the same size. Both take turns, at the widths
where a search begins, which are its dearest. Time is the thread's processor time; memory is what
all steps save for their backward passes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope

from prunet_mm import register_all_modules
from prunet_mm.engine.files import write_atomic
from prunet_mm.latency import LatencyTable
from prunet_mm.search.model import ArchitectureSearch
from prunet_mm.search.optim import SearchOptimWrapperConstructor
from prunet_mm.search.ramp import BudgetRamp
from prunet_mm.spec import SearchSpace

CANDIDATES = [(op, kernel) for kernel in (3, 5, 7) for op in ('irb', 'fused_irb')]
BATCH, PATHS = 64, 4


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--counts', type=int, nargs='+', default=[1, 2, 4, 6])
    parser.add_argument('--out', default='benchmarks/results/iteration_cost.json')
    args = parser.parse_args()
    torch.set_num_threads(1)
    register_all_modules()
    DefaultScope.get_instance('iteration_cost', scope_name='mmpretrain')
    rows = [measure(count, args.rounds) for count in args.counts]
    for row in rows:
        print(json.dumps(row), flush=True)
    write_atomic(args.out, json.dumps(dict(torch=torch.__version__, rows=rows), indent=1) + '\n')


def space(count: int) -> dict:
    """The space of ``configs/search/prunet_cifar10.py``, with so many candidates in each layer."""
    candidates = [dict(op=op, kernel=kernel) for op, kernel in CANDIDATES[:count]]
    widths = dict(max_expansion=4, granularity=8, candidates=candidates)
    return dict(
        name='cost',
        resolution=32,
        stem=dict(out_channels=16, stride=2),
        stages=[
            dict(width=24, stride=1, depth=2, **widths),
            dict(width=40, stride=2, depth=3, **widths),
            dict(width=80, stride=2, depth=3, **widths),
        ],
        tail=dict(num_classes=10),
    )


def classifier(backbone: dict) -> dict:
    """Config of a classifier around a backbone."""
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=80),
        data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=10),
    )


def measure(count: int, rounds: int) -> dict:
    """A row: ratios of medians, for so many candidates."""
    plain = SearchSpace.from_dict(space(count))
    search = ArchitectureSearch(
        classifier(dict(type='SuperNet', space=space(count))),
        latency=dict(table=macs_table(plain), budget_ratio=0.5),
    ).to(memory_format=torch.channels_last)
    search.supernet.walking = True
    search.ramp = BudgetRamp([search.budget.budget_ms], 100)
    search.ramp.now_ms.fill_(search.budget.largest_ms)
    wrappers = SearchOptimWrapperConstructor(dict(
        weights=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        architecture=dict(optimizer=dict(type='Adam', lr=1e-6)),
    ))(search)  # fmt: skip
    widest = MODELS.build(classifier(dict(type='PRUNet', arch=plain.largest().to_dict())))
    widest = widest.to(memory_format=torch.channels_last).train()
    optimizer = OptimWrapper(torch.optim.SGD(widest.parameters(), lr=0.01, momentum=0.9))
    search.train()
    rng = random.Random(0)

    def iteration() -> None:
        (path,) = (search.supernet.draw_path(rng, 1.0) for _ in range(1))
        search.weight_step(iter([images(BATCH)]), wrappers['weights'], path)
        paths = [search.supernet.draw_path(rng, 1.0) for _ in range(PATHS)]
        search.architecture_step(iter([images(BATCH // PATHS)]), wrappers['architecture'], paths)
        search.weigh()

    def two_steps() -> None:
        for _ in range(2):
            data = widest.data_preprocessor(images(BATCH), True)
            inputs = data['inputs'].contiguous(memory_format=torch.channels_last)
            loss, _ = widest.parse_losses(widest(inputs, data['data_samples'], mode='loss'))
            optimizer.update_params(loss)

    seconds = {iteration: [], two_steps: []}
    for number in range(rounds + 2):
        for run in seconds:
            begin = time.thread_time()
            run()
            if number > 1:
                seconds[run].append(time.thread_time() - begin)
    ours, theirs = (statistics.median(seconds[run]) for run in (iteration, two_steps))
    return dict(
        candidates=count,
        seconds=round(ours, 4),
        two_steps_of_the_widest=round(theirs, 4),
        ratio=round(ours / theirs, 3),
        memory_ratio=round(saved_bytes(iteration) / (saved_bytes(two_steps) / 2), 3),
        rounds=rounds,
    )


def images(count: int) -> dict:
    """A batch of noise."""
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(index % 10) for index in range(count)]
    return dict(inputs=torch.randint(0, 255, (count, 3, 32, 32)).float(), data_samples=samples)


def saved_bytes(run) -> int:
    """Bytes that all backward passes of a call have saved, each tensor once."""
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(seen.values())


def macs_table(plain: SearchSpace) -> str:
    """A latency table in which a ms stands for a million multiply-accumulates."""
    entries = [
        dict(
            {field: value for field, value in key._asdict().items() if value is not None},
            latency_ms=key.macs() / 1e6, iqr_ms=0.0, samples=0,
        )
        for key in plain.block_keys()
    ]  # fmt: skip
    path = Path(tempfile.mkdtemp()) / 'macs_estimated.json'
    LatencyTable.from_dict(dict(
        schema_version=1, kind='estimated', device='counted MACs', backend='none', dtype='none',
        batch=BATCH, threads=1, software={}, date='-', protocol={}, entries=entries,
    )).save(path)  # fmt: skip
    return str(path)


if __name__ == '__main__':
    main()
