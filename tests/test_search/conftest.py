"""A search that comes to its end in seconds: 8 px digits, four layers, every tier acting."""

import copy
import functools
import itertools
import json
import random
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import runner as mmengine_runner

from prunet_mm import register_all_modules
from prunet_mm.engine import cli
from prunet_mm.models import PRUNet

register_all_modules()

SPACE = dict(
    name='tiny',
    resolution=8,
    in_channels=1,
    stem=dict(out_channels=8, kernel=3, stride=1, act='relu'),
    stages=[
        dict(
            width=8,
            stride=2,
            depth=2,
            ops=['irb', 'fused_irb'],
            kernels=[3],
            max_expansion=4,
            granularity=8,
        ),
        dict(
            width=16,
            stride=2,
            depth=2,
            ops=['irb'],
            kernels=[3, 5],
            max_expansion=4,
            granularity=8,
        ),
    ],
    tail=dict(num_classes=10),
)

NUMBERS = itertools.count()

HOOKS = dict(
    SearchStateHook={},
    TemperatureHook={},
    RampHook={},
    PrunodeHook={},
    BlockPruningHook={},
    LayerPruningHook=dict(threshold=0.95, begin=0.2, interval=2, probes=2),
    SettleHook=dict(interval=1, probes=2),
    HistoryHook={},
    DeriveHook={},
)

OPTIONS = dict(
    model=dict(
        type='ArchitectureSearch',
        architecture=dict(
            type='ImageClassifier',
            backbone=dict(type='SuperNet'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
        ),
        latency=dict(budget_ratio=0.45),
        # a price of latency from the start, so that some layers are not worth theirs
        objective=dict(type='AugmentedLagrangian', weight=0.05),
    ),
    train_dataloader=dict(batch_size=16, dataset=dict(serialize_data=False)),
    train_cfg=dict(max_iters=30, warmup_iters=5, architecture_batch_size=16),
    # steep, so that there is something to prune after so few steps
    optim_wrapper=dict(architecture=dict(optimizer=dict(lr=0.1))),
    default_hooks=dict(checkpoint=dict(interval=5), logger=dict(interval=5)),
    visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]),
    log_level='WARNING',
)


@pytest.fixture
def space():
    return copy.deepcopy(SPACE)


@pytest.fixture
def make_table(synthetic_table):
    """Build the table of a space, by default of the tiny one."""

    def make(space=SPACE, **fields):
        return synthetic_table(space, **fields)

    return make


@pytest.fixture
def tiny_config(root, tmp_path, make_table):
    """Write the config of the tiny search and its table; returns the config's path.

    Options are given as to ``--cfg-options``, hooks by their type, with None for one to leave out.
    """

    def write(options=(), space=SPACE, table=None, hooks=()):
        path = tmp_path / 'table.json'
        (table or make_table(space)).save(path)
        cfg = Config(copy.deepcopy(OPTIONS))
        cfg.model.architecture.backbone.space = copy.deepcopy(space)
        cfg.model.latency.table = str(path)
        cfg.custom_hooks = [
            dict(type=name, **settings)
            for name, settings in (HOOKS | dict(hooks)).items()
            if settings is not None
        ]
        cfg.merge_from_dict(dict(options))
        bases = [f'{root}/configs/_base_/{name}.py' for name in ('search', 'datasets/digits')]
        text = ''.join(f'{name} = {value!r}\n' for name, value in cfg.to_dict().items())
        config = tmp_path / 'tiny.py'
        config.write_text(f'_base_ = {bases}\n{text}')
        return config

    return write


@functools.cache
def _digits():
    from sklearn.datasets import load_digits

    return load_digits()


@pytest.fixture
def quick(monkeypatch):
    """Leave out what takes most of the time of a tiny search and is tested elsewhere."""
    from prunet_mm.search import finish, model

    monkeypatch.setattr(model, 'NEAR', 1.0)  # so few steps do not bring E[lat] to the budget
    digits = _digits()
    monkeypatch.setattr('sklearn.datasets.load_digits', lambda: digits)
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr(mmengine_runner, 'collect_env', dict)
    monkeypatch.setattr(finish, 'write_report', lambda *_: '')
    monkeypatch.setattr(finish, 'write_page', lambda *_: None)
    monkeypatch.setattr(finish, 'pictures', lambda _: [])


@pytest.fixture
def make_search(quick, tiny_config, tmp_path):
    """Build the runner of a tiny search, in this process; arguments as of `tiny_config`."""
    from prunet_mm.engine.checkpoint import use_safe_loading
    from prunet_mm.search import SearchRunner

    use_safe_loading()

    def make(options=(), work_dir='work', resume=None, **config):
        cfg = cli.load_config(tiny_config(options, **config), work_dir=str(tmp_path / work_dir))
        for part in ('val', 'test'):
            for key in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{part}_{key}'] = None
        cfg.resume, cfg.load_from = resume is not None, None if resume in (None, 'auto') else resume
        cfg.experiment_name = f'search {next(NUMBERS)}'  # mmengine finds globals by this name
        return SearchRunner.from_cfg(cfg)

    return make


@pytest.fixture
def make_lone_search(make_search):
    """Build a tiny search with no other hooks than these and the history; else as `make_search`."""

    def make(hooks, *args, **kwargs):
        others = dict.fromkeys(HOOKS) | dict(HistoryHook={})
        return make_search(*args, hooks=others | hooks, **kwargs)

    return make


class KilledError(BaseException):
    """Stands for a death that no handler of ours sees."""


class DyingHook(Hook):
    """Dies after a step, when everything but the checkpoint is done."""

    priority = 'VERY_LOW'

    def __init__(self, step):
        self.step = step

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == self.step:
            raise KilledError


@pytest.fixture
def kill_after():
    """Run a search that is killed after a step."""

    def run(runner, step):
        runner.register_hook(DyingHook(step))
        with pytest.raises(KilledError):
            runner.train()

    return run


@pytest.fixture
def log(monkeypatch):
    """Collect what is logged with level INFO; call it with a runner before it runs."""

    def collect(runner):
        lines = []
        monkeypatch.setattr(runner.logger, 'info', lines.append)
        return lines

    return collect


@pytest.fixture
def history(tmp_path):
    """Read the rows of a history."""

    def read(work_dir='work'):
        text = (tmp_path / work_dir / 'history.jsonl').read_text()
        return [json.loads(line) for line in text.splitlines()]

    return read


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def started():
    """Bring a runner to the moment before its first step, with loop, optimisers and weights."""

    def start(runner):
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.model.init_weights()
        runner.model.train()
        return runner

    return start


@pytest.fixture
def make_resting(make_search, space):
    """Build the model of a tiny search before its first step, with a budget at its last target.

    Skips are open and widths searched, on a fine grid by default.
    """
    from prunet_mm.search.ramp import BudgetRamp

    def make(options=(), granularity=1):
        space['stages'] = [stage | dict(granularity=granularity) for stage in space['stages']]
        model = make_search(options, space=space).model
        model.ramp = BudgetRamp(model.budget.targets_ms, steps=10, begin=0, jump=True)
        while not model.ramp.at_last:
            model.ramp.step(1, model.budget.largest_ms, steady=True)
        model.supernet.walking = True
        model.supernet.open_skips()
        model.supernet.set_gap(0.0)
        return model.train()

    return make


@pytest.fixture
def teach():
    """Let the scores of a model learn from paths whose loss is a sum over their choices."""

    def teach(model, losses, doubt=0.1, count=200):
        """``losses`` by layer and choice, 0 where none is given; scores doubt a tenth of that."""
        rng, scores = random.Random(0), model.scores
        for _ in range(count):
            paths = [model.supernet.draw_path(rng, exploration=1.0) for _ in range(4)]
            told = [sum(losses.get(pair, 0.0) for pair in path.items()) for path in paths]
            scores.observe(paths, torch.tensor(told, dtype=torch.float64))
        scores.spread[0] = scores.mean() @ scores.moment + doubt**2 * scores.spread[1]
        model.weigh()

    return teach


@pytest.fixture
def in_two_processes(tmp_path):
    """Call a function with the rank in two processes that can talk; returns what each returns."""

    def be(work, rank):
        store = dist.FileStore(str(tmp_path / 'store'), 2)
        dist.init_process_group('gloo', store=store, rank=rank, world_size=2)
        torch.save(work(rank), tmp_path / f'{rank}.pt')
        dist.barrier()

    def run(work):
        processes = [get_context('fork').Process(target=be, args=(work, rank)) for rank in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            process.kill()
        return [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]

    return run


@pytest.fixture
def set_costs():
    """Give every candidate one latency in ms, whatever its hidden width."""

    def set_costs(supernet, costs_ms):
        supernet.fixed_ms = 0.0
        for name, layer in supernet.layers().items():
            for candidate, block in layer.candidates.items():
                block.latency_ms.fill_(costs_ms[name, candidate])

    return set_costs


@pytest.fixture
def lively():
    """Build a network whose norms scale and shift, as those of a trained one do."""

    def build(arch):
        torch.manual_seed(0)
        network = PRUNet(arch)
        for norm in network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight.data.uniform_(0.2, 2.0)
                norm.bias.data.normal_(0, 0.5)
        return network

    return build
