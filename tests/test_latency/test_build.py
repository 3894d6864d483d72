import dataclasses
import random

import pytest

from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.latency import LatencyTable, pool, validation
from prunet_mm.latency import build as module
from prunet_mm.latency.build import Plan, build_table
from prunet_mm.latency.pool import Pool
from prunet_mm.timing import Settings
from prunet_mm.timing.backends.torch_backends import Eager
from prunet_mm.timing.engine import Protocol

QUICK = Protocol(passes=2, min_rounds=2, max_seconds=0.01)
FIVE_ROUNDS = Protocol(passes=2, min_rounds=5, max_seconds=0.01)


def block_ms(key) -> float:
    """What a block takes on the machine of these tests."""
    return 1 + key.macs() / 1e4


class Killed(BaseException):
    """SIGKILL."""


class Machine:
    """A stopwatch and a clock for a machine on which blocks take `block_ms`, more or less.

    Networks take 0.2 ms more than 1.1 times their blocks. Time passes only while something runs.

    Args:
        slowness: By what it is slower at a time in seconds.
        noise: Standard deviation of a time's logarithm.
        dies_after: The process is killed when that many times have been taken.
    """

    name = 'a clock of its own'

    def __init__(self, slowness=lambda now: 1.0, noise=0.0, dies_after=None):
        self.networks, self.slowness, self.noise = {}, slowness, noise
        self.dies_after, self.now, self.rng = dies_after, 0.0, random.Random(0)
        self.timed = []

    def __call__(self) -> float:
        return self.now

    def laps_ms(self, steps, x):
        if len(self.timed) == self.dies_after:
            raise Killed
        labels = [step(None) for step in steps]
        self.timed.append(labels)
        laps_ms = [
            self._ms(label) * self.slowness(self.now) * self.rng.lognormvariate(0, self.noise)
            for label in labels
        ]
        self.now += sum(laps_ms) / 1e3
        return laps_ms

    def _ms(self, label):
        if isinstance(label, int):
            return 0.2 + 1.1 * sum(map(block_ms, self.networks[label].block_keys()))
        return block_ms(label)


@pytest.fixture
def plan(space) -> Plan:
    return Plan(space, Settings(batch=2), validate=8)


@pytest.fixture
def build(plan, monkeypatch):
    """Build a table on a `Machine`, where blocks need not be there to be timed."""
    monkeypatch.setattr(Pool, '_get', lambda self, label, *rest: lambda x: label)

    network = Pool.network

    def noticed(self, label, spec, *args):
        build.machine.networks[label] = spec
        return network(self, label, spec, *args)

    monkeypatch.setattr(Pool, 'network', noticed)

    def build(
        protocol=FIVE_ROUNDS,
        journal=None,
        plan=plan,
        fresh=False,
        progress=lambda done: None,
        **machine,
    ):
        machine = Machine(**machine)
        build.machine = machine
        return build_table(plan, protocol, journal, fresh, progress, machine, machine)

    return build


def changed(plan, changes):
    """The plan with other fields, of its own or of its settings."""
    own = {
        name: value for name, value in changes.items() if name in ('space', 'widths', 'validate')
    }
    others = {name: value for name, value in changes.items() if name not in own}
    settings = dataclasses.replace(plan.settings, **others)
    return dataclasses.replace(plan, settings=settings, **own)


def errors(table) -> list[float]:
    """Relative errors of the entries."""
    return [entry.latency_ms / block_ms(entry.key) - 1 for entry in table.entries]


@pytest.fixture(scope='module')
def real_table(request):
    """A table of real blocks on this machine."""
    from prunet_mm.spec import SearchSpace

    space = SearchSpace.from_dict(
        dict(
            name='tiny',
            resolution=4,
            stem=dict(out_channels=4, stride=1),
            stages=[dict(width=4, stride=2, depth=2, kernels=[3], granularity=8)],
            tail=dict(num_classes=2),
        )
    )
    return space, build_table(Plan(space, Settings(batch=2), validate=4), QUICK)


def test_a_table_of_this_machine_serves_every_block_of_the_space(real_table):
    from prunet_mm.timing.device import device_name

    space, table = real_table
    table.require(space.block_keys())
    assert table.predict_ms(space.largest()) > table.block_ms(space.block_keys()[0]) > 0
    assert (table.kind, table.device) == ('measured', device_name('cpu'))
    assert (table.batch, table.threads) == (2, 1)
    assert (table.backend, table.dtype) == ('eager', 'float32')
    assert 'torch' in table.software
    assert all(entry.samples >= 4 for entry in table.entries)
    assert not any(map(table.is_interpolated, space.block_keys()))


def test_blocks_and_networks_cost_what_they_take(build, space):
    table = build()
    assert errors(table) == pytest.approx([0] * len(table.entries), abs=1e-5)
    assert table.network_scale == pytest.approx(1.1, abs=0.02)
    assert table.validation.fitted_on == 4
    assert table.validation.errors == pytest.approx([0] * 4, abs=5e-3)
    spec = space.largest()
    measured_ms = 0.2 + 1.1 * sum(map(block_ms, spec.block_keys()))
    assert table.predict_ms(spec) == pytest.approx(measured_ms, rel=0.02)


def test_the_table_says_how_it_was_measured(build):
    protocol = build().protocol
    assert (protocol['rounds'], protocol['sessions'], protocol['passes']) == (5, 1, 2)
    assert protocol['clock'] == 'a clock of its own'
    assert protocol['anchor'].startswith('irb 4->4')
    assert protocol['drift_divided_out'] == [1.0, 1.0]


def test_a_machine_that_slows_down_does_not_spoil_the_table(build):
    table = build(
        Protocol(max_seconds=20, precision=0), noise=0.01, slowness=lambda now: 1 + now / 20
    )
    least, most = table.protocol['drift_divided_out']
    assert most / least > 1.4
    scale = sum(errors(table)) / len(table.entries)
    assert max(errors(table)) - min(errors(table)) < 0.04 * (1 + scale)
    assert abs(table.validation.errors).max() < 0.02


def test_noise_averages_out(build):
    table = build(Protocol(max_seconds=1000, precision=0.01), noise=0.05)
    assert max(map(abs, errors(table))) < 0.02
    assert max(entry.iqr_ms / entry.latency_ms for entry in table.entries) < 0.1


def test_rounds_are_shuffled_and_each_visits_everything(build, plan):
    build()
    visits = [labels for labels in build.machine.timed if labels != build.machine.timed[2]]
    anchor = build.machine.timed[2]
    assert len(build.machine.timed) - len(visits) == len(visits) * 2 / 3  # once per timed pass
    firsts = visits[::3]
    networks = [labels[0] for labels in firsts if isinstance(labels[0], int)]
    networks = [label - len(plan.blocks) for label in networks]
    rounds = [networks[start : start + 8] for start in range(0, len(networks), 8)]
    assert [sorted(order) for order in rounds] == [list(range(8))] * 5
    assert len(set(map(tuple, rounds))) > 1
    assert len(anchor) == 1


def test_few_networks_come_several_times_in_a_long_round(build, plan):
    build(plan=dataclasses.replace(plan, validate=2))
    chains = [len(plan.chains(number)) for number in range(5)]
    visits = [labels[0] for labels in build.machine.timed if isinstance(labels[0], int)][::3]
    often = [max(1, count // 4) for count in chains]
    assert max(often) > 1
    assert visits.count(len(plan.blocks)) == visits.count(len(plan.blocks) + 1) == sum(often)


@pytest.mark.parametrize('dies_after', [1, 2, 40, 41, 77, 100])
def test_a_killed_run_goes_on_to_the_same_table(build, plan, tmp_path, dies_after):
    path = tmp_path / 'journal'
    with pytest.raises(Killed):
        build(journal=path, dies_after=dies_after)
    timed = dies_after // 5  # visits: a pass for nothing, two timed ones, the anchor twice
    assert path.read_bytes().count(b'\n') == 1 + timed
    table = build(journal=path)
    whole = build()
    assert table.entries == whole.entries
    assert table.validation == whole.validation
    assert table.protocol['sessions'] == (2 if timed else 1)
    assert table.protocol['rounds'] == 5


def test_what_was_measured_is_not_measured_again(build, tmp_path):
    path = tmp_path / 'journal'
    build(journal=path)
    whole = len(build.machine.timed)
    with pytest.raises(Killed):
        build(journal=path, fresh=True, dies_after=whole // 2)
    build(journal=path)
    assert len(build.machine.timed) <= whole - whole // 2 + 5
    build(journal=path)
    assert build.machine.timed == []  # killed when all was measured, and nothing was saved


@pytest.mark.parametrize('dies_after', [90, 175])  # the second one in the middle of five rounds
def test_a_session_on_a_slower_machine_changes_nothing(build, tmp_path, dies_after):
    with pytest.raises(Killed):
        build(journal=tmp_path / 'journal', dies_after=dies_after)
    table = build(journal=tmp_path / 'journal', slowness=lambda now: 1.5)
    least, most = table.protocol['drift_divided_out']
    assert most / least == pytest.approx(1.5, abs=1e-3)
    scale = 1 + errors(table)[0]
    assert errors(table) == pytest.approx([scale - 1] * len(table.entries), abs=1e-4)
    assert abs(table.validation.errors).max() < 5e-3


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(batch=3), 'batch was 2 and is 3 now'),
        (dict(backend='torchscript'), 'backend was eager and is torchscript now'),
        (dict(validate=2), 'validate was 8 and is 2 now'),
        (dict(space='another'), 'space is another now'),
    ],
)
def test_another_plan_is_not_mixed_in(build, plan, tmp_path, changes, sentence):
    with pytest.raises(Killed):
        build(journal=tmp_path / 'journal', dies_after=30)
    if 'space' in changes:
        changes = dict(space=plan.space.model_copy(update=dict(resolution=8)))
    other = changed(plan, changes)
    with pytest.raises(ConfigError, match=f'{sentence}.*--fresh'):
        build(journal=tmp_path / 'journal', plan=other)
    assert build(journal=tmp_path / 'journal', plan=other, fresh=True).protocol['sessions'] == 1


def test_progress_rises_to_one_also_in_a_second_session(build, tmp_path):
    done = []
    for dies_after in (60, None):
        try:
            build(journal=tmp_path / 'journal', dies_after=dies_after, progress=done.append)
        except Killed:
            assert 0 < done[-1] < 1
    assert done == sorted(done)
    assert done[-1] == 1.0


@pytest.mark.parametrize('budgets', [(), (0.5,)])
def test_without_validation_nothing_is_fitted(build, plan, budgets):
    table = build(plan=dataclasses.replace(plan, validate=0, budgets=budgets, ratios=True))
    assert table.validation is None
    assert (table.network_overhead_ms, table.network_scale) == (0.0, 1.0)


def test_a_space_without_a_tail_is_measured(build, plan):
    space = plan.space.model_copy(update=dict(tail=None))
    table = build(plan=dataclasses.replace(plan, space=space))
    assert not any(entry.op == 'tail' for entry in table.entries)
    assert errors(table) == pytest.approx([0] * len(table.entries), abs=1e-5)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(device='cuda:99'), 'device cuda:99 was asked for'),
        (dict(backend='tflite'), "no backend 'tflite', known are eager, "),
        (dict(backend='cuda-graph'), 'backend cuda-graph runs on cuda, not on cpu'),
        (dict(backend='onnxruntime', dtype='bfloat16'), 'computes in float32 or float16'),
    ],
)
def test_what_is_not_here_is_refused_before_anything_is_written(plan, tmp_path, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_table(changed(plan, changes), QUICK, tmp_path / 'journal')
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_do_not_fit_into_memory_together_are_built_again(space, monkeypatch):
    monkeypatch.setattr(pool, 'free_bytes', lambda device: 4000)
    table = build_table(Plan(space, Settings(batch=1), validate=2), QUICK)
    table.require(space.block_keys())


def test_blocks_are_timed_in_a_compiled_backend_too(space):
    plan = Plan(space, Settings(backend='torchscript'), validate=2)
    table = build_table(plan, QUICK)
    assert table.backend == 'torchscript'
    assert LatencyTable.from_dict(table.to_dict()).digest == table.digest


def test_a_block_that_computes_something_else_is_refused(plan, monkeypatch):
    monkeypatch.setattr(Eager, 'prepare', lambda self, model, inputs, dtype: lambda x: 2 * model(x))
    with pytest.raises(PrunetError, match=r'^irb 4->4 .* px on eager: the output is .* away from'):
        build_table(plan, QUICK)


@pytest.mark.parametrize(
    'error', [MemoryError(), RuntimeError("can't allocate memory: you tried to allocate 9 bytes")]
)
def test_no_memory_is_one_sentence(plan, monkeypatch, error):
    def prepare(*args):
        raise error

    monkeypatch.setattr(Eager, 'prepare', prepare)
    with pytest.raises(PrunetError, match='cpu is out of memory: measure with a batch below 2'):
        build_table(plan, QUICK)


@pytest.fixture
def near(plan, monkeypatch):
    """The plan of a table that is for networks of a share of the slowest one's latency."""
    monkeypatch.setattr(module, 'NEAR', 0.1)
    return dataclasses.replace(plan, budgets=(0.75,), ratios=True, validate=20)


def test_whole_networks_are_drawn_near_the_budget(build, plan, near):
    everywhere, here = build(plan=dataclasses.replace(plan, validate=20)), build(plan=near)
    (budget_ms,) = here.validation.near_ms
    slowest = plan.space.largest(here.block_ms)
    assert budget_ms == pytest.approx(0.75 * here.predict_ms(slowest))
    assert f'10 random networks near {budget_ms:.4g} ms' in here.validation.describe()

    def far(table):
        return max(abs(ms / budget_ms - 1) for ms in table.validation.measured_ms)

    assert far(here) < far(everywhere)
    assert here.validation.networks[0] in build.machine.networks.values()


@pytest.mark.parametrize('dies_after', [30, 100, 400])
def test_a_killed_run_goes_on_to_the_same_networks(build, near, tmp_path, dies_after):
    with pytest.raises(Killed):
        build(journal=tmp_path / 'journal', plan=near, dies_after=dies_after)
    table, whole = build(journal=tmp_path / 'journal', plan=near), build(plan=near)
    assert table.validation == whole.validation
    assert table.entries == whole.entries


def test_it_stops_as_soon_as_its_own_validation_is_good(build, near, monkeypatch):
    """With noise of 5 %, a precision of 0.1 % would take thousands of rounds."""
    # The networks of so small a space are nearly equal.
    monkeypatch.setattr(validation, 'LEAST_TAU', 0.3)
    patient = Protocol(max_seconds=100, precision=0.001)
    table = build(patient, plan=near, noise=0.05)
    assert table.validation.good
    assert table.protocol['seconds'] < 50
    few = build(patient, plan=dataclasses.replace(near, validate=8), noise=0.05)
    assert few.protocol['seconds'] >= 100  # a test on four networks would say little
