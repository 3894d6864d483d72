import errno
import os
from dataclasses import replace

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import CheckpointError
from prunet_mm.latency.promise import Promise
from prunet_mm.models.prunet import PRUNet
from prunet_mm.search import finish
from prunet_mm.spec import NetworkSpec, SearchSpace
from prunet_mm.supernet import SuperNet
from prunet_mm.timing.device import device_name


@pytest.fixture
def searched(make_search):
    runner = make_search()
    runner.train()
    return runner


def test_the_network_is_of_the_space_and_keeps_the_budget(searched, space, make_table, tmp_path):
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert SearchSpace.from_dict(space).why_not(spec) is None
    told, table = spec.provenance, make_table()
    assert told['budget_ms'] == searched.model.budget.budget_ms
    assert told['predicted_ms'] == pytest.approx(table.predict_ms(spec), abs=1e-6)
    assert told['predicted_ms'] <= told['budget_ms']
    assert (told['table'], told['seed']) == (table.digest, 0)
    assert 'a device far away' in told['latency']


@pytest.mark.parametrize('tight', [1.0, 1.02])
def test_a_search_at_the_lowest_budget_ends_in_a_network_that_keeps_it(
    make_search, tmp_path, tight
):
    """However little there is to give away, no tier removes what the budget needs."""
    smallest_ms = make_search().model.budget.smallest_ms
    options = {
        'model.latency': dict(budget_ms=tight * smallest_ms, budget_ratio=None),
        'train_cfg.max_iters': 20,
        'default_hooks.checkpoint.interval': 100,
    }
    # removes whatever is not the likeliest as soon as it may
    hooks = dict(BlockPruningHook=dict(threshold=dict(start=0.9, end=0.9)))
    make_search(options, hooks=hooks).train()
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert spec.provenance['predicted_ms'] <= tight * smallest_ms * (1 + 1e-9)


def test_a_target_below_what_is_there_without_skips_is_met_before_they_open(
    make_search, tmp_path, history
):
    supernet = make_search().model.supernet
    targets_ms = [1.1 * supernet.fastest_ms(), 0.95 * supernet.reachable_ms()]
    options = {
        'model.latency': dict(targets_ms=targets_ms, budget_ratio=None),
        'train_cfg.ramp': dict(fall=0.3),
        'default_hooks.checkpoint.interval': 100,
    }
    make_search(options, hooks=dict(LayerPruningHook=dict(begin=0.9, end=0.95))).train()
    (passed,) = (row for row in history() for e in row['events'] if e['kind'] == 'target')
    assert passed['progress'] < 0.9
    for target_ms in targets_ms:
        spec = NetworkSpec.load(tmp_path / f'work/subnet_{target_ms:g}ms.json')
        assert spec.provenance['predicted_ms'] <= target_ms


def test_the_supernet_has_become_that_network(searched, tmp_path):
    """Its weights, cut to the hidden widths, give the same outputs in the network alone."""
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    supernet = searched.model.supernet
    assert supernet.derive().layers == spec.layers
    assert float(supernet.expected_latency_ms()) == pytest.approx(spec.provenance['predicted_ms'])
    network = PRUNet(arch=spec.to_dict()).eval()
    weights = searched.model.supernet.state_dict()
    target = network.state_dict()
    layers = list(supernet.layers())
    copied = 0
    for name, tensor in target.items():
        stage, _, rest = name.partition('.')
        source = name
        if stage != 'stem':
            alive = [layer for layer in layers if layer.startswith(f'{stage}.')]
            index, _, rest = rest.partition('.')
            layer = alive[int(index)]
            (candidate,) = supernet.layers()[layer].candidates
            source = f'{layer}.candidates.{candidate}.block.{rest}'
        value = weights[source]
        copied += 1
        tensor.copy_(value[tuple(slice(size) for size in tensor.shape)])
    assert copied == len(target)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(x), supernet.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def measured(searched, make_table, tmp_path):
    """Measure the network that was found, by a table of these fields."""

    def measure(**fields):
        spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
        searched.model.table = make_table(**fields)
        return finish.measure_subnets([spec], searched.model, [1.0])

    return measure


def test_the_device_of_the_table_measures_the_network(measured, monkeypatch):
    monkeypatch.setattr(finish, 'SECONDS', 2.0)
    here = dict(device=device_name('cpu'))
    assert measured() is None  # of another device
    assert measured(**here)[0].measured_ms > 0
    assert measured(**here, backend='cuda-graph') is None
    assert measured(**here, kind='estimated') is None


@pytest.mark.parametrize('trouble', ['no memory', 'no process'])
def test_a_measurement_that_fails_costs_the_measurement_alone(measured, monkeypatch, trouble):
    lines = []
    monkeypatch.setattr(finish, 'print_log', lambda text, **_: lines.append(text))
    if trouble == 'no process':
        monkeypatch.setattr(os, 'pipe', failing)
    # images of 512 GiB
    assert measured(device=device_name('cpu'), batch=2**31 - 1) is None
    (line,) = lines
    assert line.startswith('The network is not measured: ')
    assert ('out of memory' if trouble == 'no memory' else 'Too many open files') in line


def failing(*_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def clock_off_by(factor):
    """A machine on which every network takes ``factor`` times what the table says."""

    def measure(specs, model, predicted_ms):
        took_ms = [factor * model.table.predict_ms(spec) for spec in specs]
        return [
            Promise(said, 1.1 * took, 0.01, 99, 1.1, (1.09, 1.11), took, (0.99 * took, 1.01 * took))
            for said, took in zip(predicted_ms, took_ms, strict=True)
        ]

    return measure


@pytest.mark.parametrize('factor', [0.85, 1.0, 1.15])
def test_an_error_of_the_table_is_found_and_corrected(make_search, monkeypatch, tmp_path, factor):
    monkeypatch.setattr(finish, 'measure_subnets', clock_off_by(factor))
    runner = make_search({'default_hooks.checkpoint.interval': 100})
    runner.train()
    spec, table = NetworkSpec.load(tmp_path / 'work/subnet.json'), runner.model.table
    told, budget_ms = spec.provenance, runner.model.budget.budget_ms
    took_ms = factor * table.predict_ms(spec)
    assert told['measured']['at_table_state_ms'] == pytest.approx(took_ms, abs=1e-6)
    assert took_ms <= 1.01 * budget_ms
    if told['table_rescaled_by'] == pytest.approx(factor):
        assert told['predicted_ms'] == pytest.approx(took_ms, abs=1e-6)
    else:  # there is nothing wider to use the budget with
        assert factor < 1
        assert all(one.fixed_width == one.widths[-1] for one in runner.model.supernet.prunodes())
    assert told['measured']['state'] == 1.1
    assert runner.model.supernet.derive().layers == spec.layers
    assert load_checkpoint_file(tmp_path / 'work/searched.pth')


def test_a_correction_that_makes_it_worse_is_taken_back(make_search, monkeypatch, tmp_path):
    """The second measurement has nothing to do with the first."""
    before = []

    def measure(specs, model, predicted_ms):
        before.append(specs[0])
        took = model.budget.budget_ms * (1.1 if len(before) == 1 else 2.0)
        return [Promise(ms, took, 0.01, 99, 1.0, (1, 1), took, (took, took)) for ms in predicted_ms]

    monkeypatch.setattr(finish, 'measure_subnets', measure)
    runner = make_search({'default_hooks.checkpoint.interval': 100})
    runner.train()
    assert len(before) > 1
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert spec.layers == before[0].layers == runner.model.supernet.derive().layers
    assert spec.provenance['table_rescaled_by'] == 1.0


def test_of_the_roundings_that_a_correction_measures_the_nearest_is_taken(
    make_search, monkeypatch, tmp_path
):
    """The table is wrong for each network by a number of its own."""
    seen = []

    def several(runner, result, scale):
        layers, widths = runner.model.supernet.layers(), result.rounding.widths
        name = next(iter(widths))
        (block,) = layers[name].candidates.values()
        return [replace(result.rounding, widths=widths | {name: w}) for w in block.widths]

    def measure(specs, model, predicted_ms):
        shares = [0.9, 0.996, 1.02, 1.02] if seen else [1.05]
        took_ms = [share * model.budget.budget_ms for share in shares[: len(specs)]]
        seen.append([spec.layers for spec in specs])
        return [Promise(ms, ms, 0.01, 99, 1.0, (1, 1), ms, (ms, ms)) for ms in took_ms]

    monkeypatch.setattr(finish, 'corrected', several)
    monkeypatch.setattr(finish, 'measure_subnets', measure)
    runner = make_search({'default_hooks.checkpoint.interval': 100})
    runner.train()
    (first,), others = seen
    assert len(others) > 1 and first not in others
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert spec.layers == others[1] == runner.model.supernet.derive().layers
    told = spec.provenance
    assert told['measured']['at_table_state_ms'] == pytest.approx(
        0.996 * told['budget_ms'], abs=1e-6
    )
    weights = load_checkpoint_file(tmp_path / 'work/searched.pth')['state_dict']
    assert SuperNet.from_state_dict(weights, 'architecture.backbone.').derive().layers == others[1]


def test_deriving_from_the_last_checkpoint_gives_the_same(searched, make_search, tmp_path):
    runner = make_search(work_dir='derived')
    runner.derive(str(tmp_path / 'work/iter_30.pth'))
    same_files(tmp_path, 'subnet.json')
    one, other = (load_checkpoint_file(tmp_path / d / 'searched.pth') for d in ('work', 'derived'))
    for name, tensor in one['state_dict'].items():
        assert torch.equal(tensor, other['state_dict'][name]), name


def same_files(folder, name):
    assert (folder / 'work' / name).read_bytes() == (folder / 'derived' / name).read_bytes()


def test_deriving_in_the_midst_of_a_search_gives_a_network_of_the_budget(
    make_search, tmp_path, space
):
    space['stages'] = [stage | dict(granularity=1) for stage in space['stages']]
    short = {'train_cfg.max_iters': 10}
    make_search(short, space=space, hooks=dict(DeriveHook=None)).train()
    runner = make_search(space=space, work_dir='derived')
    runner.derive(str(tmp_path / 'work/iter_10.pth'))
    spec = NetworkSpec.load(tmp_path / 'derived/subnet.json')
    assert SearchSpace.from_dict(space).why_not(spec) is None
    assert spec.provenance['predicted_ms'] <= spec.provenance['budget_ms']
    uses = spec.provenance['predicted_ms'] >= 0.99 * spec.provenance['budget_ms']
    # or what was chosen while no width had followed yet is as wide as it can be
    assert uses or all(layer.hidden == 4 * layer.in_channels for layer in spec.layers)


def test_what_is_known_goes_to_the_report(make_search, monkeypatch):
    told = []
    runner = make_search(hooks=dict(LayerPruningHook=None))
    monkeypatch.setattr(finish, 'write_report', lambda *args: told.append(args) or 'a summary')
    lines = []
    monkeypatch.setattr(runner.logger, 'info', lines.append)
    runner.train()
    ((work_dir, spec, outcome),) = told
    assert 'a summary' in lines
    assert str(work_dir) == runner.work_dir
    assert outcome.predicted_ms == pytest.approx(spec.provenance['predicted_ms'], abs=1e-6)
    assert outcome.budget_ms == runner.model.budget.budget_ms
    share = outcome.predicted_ms / outcome.budget_ms
    assert share <= 1
    assert (share < 0.99) == (outcome.rounding.blocked is not None)
    assert outcome.finalists[0].rounding == outcome.rounding
    assert outcome.derived_loss == pytest.approx(outcome.finalists[0].loss)
    assert outcome.measured is None
    assert sum(outcome.block_ms) == pytest.approx(outcome.predicted_ms)


def test_a_checkpoint_without_a_search_is_refused(make_search, tmp_path):
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta={}), tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='other.pth: this is no checkpoint of a search'):
        make_search().derive(str(tmp_path / 'other.pth'))
