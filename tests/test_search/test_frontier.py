"""Three networks from one search: what is written, and that taking one disturbs nothing."""

import json

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import CheckpointError
from prunet_mm.search.frontier import read_frontier
from prunet_mm.search.hooks import ramp_hook
from prunet_mm.spec import NetworkSpec

TARGETS = [0.15, 0.18, 0.22]
OPTIONS = {
    'model.latency': dict(budget_ratio=None, targets_ms=TARGETS),
    'train_cfg.ramp': dict(begin=0.1, fall=0.4, rest=0.2),
}
NAMES = [f'subnet_{target}ms.json' for target in TARGETS]


class KilledError(BaseException):
    """Stands for a death that no handler of ours sees."""


@pytest.fixture(scope='module')
def ends():
    """Work dir of the search that ran to its end without interruption."""
    return []


@pytest.fixture
def whole(make_search, tmp_path, ends):
    if not ends:
        make_search(OPTIONS, work_dir='whole').train()
        ends.append(tmp_path / 'whole')
    return ends[0]


def rows_of(folder):
    return [json.loads(line) for line in (folder / 'history.jsonl').read_text().splitlines()]


def steps_of_targets(folder):
    return {
        event['target_ms']: row['step']
        for row in rows_of(folder)
        for event in row['events']
        if event['kind'] == 'target'
    }


def test_every_target_has_its_network_its_weights_and_its_row(whole, make_table):
    rows = read_frontier(whole)
    assert [row['target_ms'] for row in rows] == TARGETS
    assert [row['subnet'] for row in rows] == NAMES
    table = make_table()
    for row in rows:
        spec = NetworkSpec.load(whole / row['subnet'])
        assert spec.provenance['budget_ms'] == row['target_ms']
        assert table.predict_ms(spec) == pytest.approx(row['predicted_ms'])
        assert row['predicted_ms'] <= row['target_ms']
        assert row['loss'] > 0
    assert NetworkSpec.load(whole / 'subnet.json') == NetworkSpec.load(whole / NAMES[0])
    for target in TARGETS[1:]:
        assert 'state_dict' in load_checkpoint_file(whole / f'searched_{target}ms.pth')


def test_targets_are_passed_from_the_highest_down_and_the_last_ends_the_search(whole):
    steps = steps_of_targets(whole)
    assert list(steps) == TARGETS[:0:-1]
    rows = rows_of(whole)
    assert rows[-1]['budget_ms'] == TARGETS[0]
    for target, step in steps.items():
        (at,) = [row for row in rows if row['step'] == step]
        assert at['budget_ms'] == target


def test_killed_at_each_target_and_between_it_ends_the_same(
    make_search, whole, tmp_path, kill_after
):
    steps = list(steps_of_targets(whole).values())
    moments = [steps[0] - 1, steps[0], steps[0] + 1, steps[1], steps[1] + 2]
    for i, moment in enumerate(moments):
        runner = make_search(OPTIONS, resume='auto' if i else None)
        kill_after(runner, moment)
    make_search(OPTIONS, resume='auto').train()
    work = tmp_path / 'work'
    for name in ('subnet.json', 'history.jsonl', 'frontier.json', *NAMES):
        assert (work / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ('searched.pth', *(f'searched_{target}ms.pth' for target in TARGETS[1:])):
        assert_same_weights(work / name, whole / name)


def assert_same_weights(one, other):
    one, other = (load_checkpoint_file(path)['state_dict'] for path in (one, other))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_killed_while_a_target_is_exported(make_search, whole, tmp_path, monkeypatch):
    def die(*_):
        raise KilledError

    runner = make_search(OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('prunet_mm.search.finish.add_to_frontier', die)
        with pytest.raises(KilledError):
            runner.train()
    assert (tmp_path / 'work' / NAMES[2]).exists() and not read_frontier(tmp_path / 'work')
    make_search(OPTIONS, resume='auto').train()
    for name in ('history.jsonl', 'frontier.json', *NAMES):
        assert (tmp_path / 'work' / name).read_bytes() == (whole / name).read_bytes(), name


def test_to_pass_a_target_does_not_change_the_search_that_goes_on(
    make_search, whole, tmp_path, monkeypatch
):
    taken = []
    monkeypatch.setattr(ramp_hook, 'take_target', lambda runner, target: taken.append(target))
    make_search(OPTIONS).train()
    assert taken == TARGETS[:0:-1]
    for name in ('subnet.json', 'history.jsonl'):
        assert (tmp_path / 'work' / name).read_bytes() == (whole / name).read_bytes()
    assert_same_weights(tmp_path / 'work/searched.pth', whole / 'searched.pth')


@pytest.mark.parametrize('targets', [[0.15, 0.22], [0.15, 0.18, 0.2], [0.15, 0.18, 0.2, 0.22]])
def test_a_search_does_not_go_on_for_other_targets(make_search, whole, targets):
    latency = dict(budget_ratio=None, targets_ms=targets)
    runner = make_search(OPTIONS | {'model.latency': latency}, resume=str(whole / 'iter_30.pth'))
    with pytest.raises(
        CheckpointError, match=r'another --latency-targets-ms, \[0\.15, 0\.18, 0\.22\] and not'
    ):
        runner.train()


def test_without_a_file_there_are_no_rows(tmp_path):
    assert read_frontier(tmp_path) == []
