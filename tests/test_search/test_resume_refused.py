"""What a search does not go on from, or goes on from in another way and says so."""

import shutil

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.engine.schedule_hook import ChangedScheduleHook
from prunet_mm.errors import CheckpointError, SearchError


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'model.latency.budget_ratio': 0.5}, r'latency budget in ms, [\d.]+ and not [\d.]+'),
        ({'randomness.seed': 7}, '--seed, 0 and not 7, and another division of the training'),
        ({'model.architecture.backbone.rule': dict(type='logits')}, 'another search space or walk'),
        ({'train_cfg.max_iters': 80}, 'train_cfg.max_iters, 30 and not 80:'),
        ({'train_cfg.warmup_iters': 6}, 'train_cfg.warmup_iters, 5 and not 6'),
        ({'train_cfg.architecture_interval': 2}, 'train_cfg.architecture_interval, 1 and not 2'),
        ({'train_dataloader.batch_size': 8}, 'train_dataloader.batch_size, 16 and not 8'),
        (
            {'train_cfg.architecture_batch_size': 8},
            'train_cfg.architecture_batch_size, 16 and not 8',
        ),
        (
            {'optim_wrapper.weights.accumulative_counts': 2},
            'optim_wrapper.weights.accumulative_counts, 1 and not 2',
        ),
        (
            {'train_cfg.architecture_fraction': 0.5},
            'train_cfg.architecture_fraction, in images, 287 and not 718, and another division',
        ),
        ({'train_dataloader.dataset.split': 'test'}, 'number of training images, 1437 and not 360'),
    ],
)
def test_another_search_does_not_go_on_from_it(make_search, ten_steps, options, sentence):
    with pytest.raises(CheckpointError, match=f'iter_10.pth: .*{sentence}'):
        make_search(options, resume=str(ten_steps)).train()


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp('kept') / 'iter_10.pth'


@pytest.fixture
def ten_steps(make_search, kept, tmp_path, kill_after):
    """A checkpoint of the tiny search."""
    if not kept.exists():
        runner = make_search(work_dir='begun')
        kill_after(runner, 11)
        shutil.copy(tmp_path / 'begun/iter_10.pth', kept)
    return kept


def test_another_space_does_not_go_on_from_it(make_search, ten_steps, space):
    space['stages'][1]['max_expansion'] = 2
    with pytest.raises(CheckpointError, match='latency budget in ms, another space'):
        make_search(resume=str(ten_steps), space=space).train()


def test_another_number_of_processes_does_not_go_on_from_it(make_search, ten_steps, monkeypatch):
    monkeypatch.setattr('prunet_mm.search.hooks.state_hook.get_world_size', lambda: 2)
    with pytest.raises(CheckpointError, match='number of processes, 1 and not 2'):
        make_search(resume=str(ten_steps)).train()


def test_an_older_checkpoint_is_refused(make_search, ten_steps, tmp_path):
    older = load_checkpoint_file(ten_steps)
    older['search'] = dict(drawn=older['search']['drawn'], table='x', budget_ms=1.0)
    torch.save(older, tmp_path / 'older.pth')
    with pytest.raises(CheckpointError, match='older.pth: an earlier version of prunet_mm wrote'):
        make_search(resume=str(tmp_path / 'older.pth')).train()


def test_a_lower_rate_is_followed_and_said(make_search, kill_after):
    # The loop tells whoever has a loss that is not finite to lower the rate and to resume.
    def run(rate, stop, resume=None, folder='work'):
        options = {'optim_wrapper.weights.optimizer.lr': rate}
        runner = make_search(options, work_dir=folder, resume=resume)
        runner.register_hook(ChangedScheduleHook())
        runner.logger.warning = warned.append
        kill_after(runner, stop)
        return [group['lr'] for w in runner.optim_wrapper.values() for group in w.param_groups]

    warned = []
    run(0.1, stop=11)
    assert warned == []
    rates = run(0.02, stop=13, resume='auto')
    (warning,) = warned
    assert 'optim_wrapper.weights.optimizer.lr was 0.1 and is 0.02' in warning
    assert rates == run(0.02, stop=13, folder='whole')


def test_a_table_that_has_changed_is_refused(make_search, make_table, tmp_path):
    make_search({'train_cfg.max_iters': 10}, hooks=dict(DeriveHook=None)).train()
    table = make_table()
    entry = table.entries[0]
    other = table.to_dict()
    other['entries'][0]['latency_ms'] = entry.latency_ms * 1.01
    with pytest.raises(
        CheckpointError, match='began with another model.latency.table, and another'
    ):
        make_search(
            {'train_cfg.max_iters': 10}, resume='auto', table=type(table).from_dict(other)
        ).train()


def test_a_history_that_lacks_rows_is_refused(make_search, tmp_path):
    make_search({'train_cfg.max_iters': 10}, hooks=dict(DeriveHook=None)).train()
    path = tmp_path / 'work/history.jsonl'
    path.write_text(path.read_text()[:-100])
    with pytest.raises(SearchError, match='history.jsonl holds 4 rows up to step 10, .* of 5'):
        make_search({'train_cfg.max_iters': 10}, resume='auto').train()


def test_what_is_no_checkpoint_of_a_search_is_refused(make_search, tmp_path):
    torch.save(dict(state_dict={}, meta=dict(epoch=0, iter=3)), tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='other.pth: this is no checkpoint of a search'):
        make_search(resume=str(tmp_path / 'other.pth')).train()
