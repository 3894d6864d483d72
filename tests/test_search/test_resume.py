"""A search that is cut off anywhere and resumed ends as if nothing had happened, bit for bit."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.search import finish

# Checkpoints are written every 5 steps.
SEARCHES = dict(
    plain={},
    accumulating_with_workers={
        'train_dataloader.num_workers': 2,
        'randomness.seed': 1,
        'optim_wrapper.weights.accumulative_counts': 2,
        'optim_wrapper.weights.paramwise_cfg': dict(norm_decay_mult=0),
        'optim_wrapper.architecture.accumulative_counts': 2,
    },
    noisy_logits={
        'model.architecture.backbone.sampling': 'gumbel',
        'model.architecture.backbone.rule': dict(type='logits', interval=2, margin=0.01),
        'train_cfg.architecture_interval': 2,
        'train_cfg.max_iters': 60,
    },
)


class KilledError(BaseException):
    """Stands for a death that no handler of ours sees."""


@pytest.fixture(scope='module')
def ends():
    """Work dirs of searches that ran to their end without interruption, by their options."""
    return {}


@pytest.fixture
def whole(make_search, tmp_path, ends):
    """Put what such a search leaves behind into the folder ``whole``."""

    def run(options):
        if repr(options) not in ends:
            make_search(options, work_dir='whole').train()
            ends[repr(options)] = tmp_path / 'whole'
        else:
            shutil.copytree(ends[repr(options)], tmp_path / 'whole')

    return run


@pytest.fixture
def assert_same_end(tmp_path):
    def check(one='whole', other='work'):
        for name in ('subnet.json', 'history.jsonl'):
            assert (tmp_path / one / name).read_bytes() == (tmp_path / other / name).read_bytes()
        first, second = (
            load_checkpoint_file(tmp_path / work_dir / 'searched.pth')['state_dict']
            for work_dir in (one, other)
        )
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name

    return check


def die_at_call(monkeypatch, owner, name, number):
    """Let the so-many-th call of a method be the last thing that happens."""
    method, calls = getattr(owner, name), []

    def call(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            raise KilledError
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize('name', SEARCHES)
def test_killed_before_between_and_after_removals(
    make_search, whole, assert_same_end, history, name, kill_after
):
    whole(SEARCHES[name])
    first = {}
    for row in history('whole'):
        for event in row['events']:
            first.setdefault(event['kind'], row['step'])
    before, between, after = first['candidate'] - 1, first['layer'] - 1, first['layer'] + 6
    assert 5 < before <= between < after < history('whole')[-1]['step']
    for i, moment in enumerate([before, between, after]):
        runner = make_search(SEARCHES[name], resume='auto' if i else None)
        kill_after(runner, moment)
    runner = make_search(SEARCHES[name], resume='auto')
    runner.train()
    assert_same_end()


def removed(history):
    return [e for row in history for e in row['events'] if e['kind'] != 'move']


def test_what_was_removed_does_not_come_back(make_search, history, tmp_path, kill_after):
    runner = make_search({'train_cfg.max_iters': 31})
    kill_after(runner, 31)
    gone = [
        '.'.join(filter(None, (event['layer'], 'candidates', event.get('candidate'))))
        if 'candidate' in event
        else event['layer']
        for event in removed(history())
    ]
    assert {name.count('.') for name in gone} == {1, 3}  # layers and candidates
    runner = make_search({'train_cfg.max_iters': 31}, resume='auto')
    sizes = []

    class Look(Hook):
        def before_train(self, runner):
            names = [name for name, _ in runner.model.named_parameters()]
            sizes.append(len(names))
            for wrapper in runner.optim_wrapper.values():
                groups = wrapper.optimizer.param_groups
                sizes.append(sum(len(group['params']) for group in groups))
            assert not [name for name in names if any(f'{g}.' in name for g in gone)]

    runner.register_hook(Look())
    runner.train()
    assert sizes[0] == sizes[1] + sizes[2]
    for file in ('iter_30.pth', 'searched.pth'):
        weights = load_checkpoint_file(tmp_path / 'work' / file)['state_dict']
        assert not [name for name in weights if any(f'{g}.' in name for g in gone)]
    optimizer = load_checkpoint_file(tmp_path / 'work/iter_30.pth')['optimizer']
    for part in optimizer.values():
        count = sum(len(group['params']) for group in part['param_groups'])
        assert part['state'].keys() <= set(range(count))


def test_killed_between_two_batches_of_one_step(make_search, whole, assert_same_end, monkeypatch):
    options = SEARCHES['accumulating_with_workers'] | {'train_dataloader.num_workers': 0}
    whole(options)
    runner = make_search(options)
    forward = runner.model.objective.forward

    def die_at_the_second_batch_of_the_eighth_step(*args):
        if runner.optim_wrapper['architecture']._inner_count == 7 * 2 + 1:
            raise KilledError
        return forward(*args)

    monkeypatch.setattr(
        runner.model.objective, 'forward', die_at_the_second_batch_of_the_eighth_step
    )
    with pytest.raises(KilledError):
        runner.train()
    assert runner.iter == 12
    make_search(options, resume='auto').train()
    assert_same_end()


def test_killed_while_a_checkpoint_is_written(make_search, whole, assert_same_end, tmp_path):
    whole({})
    work_dir = tmp_path / 'work'

    def in_the_write(path):
        return path.name == 'iter_10.pth'

    def before_it_is_the_latest(path):
        return path.name == 'last_checkpoint' and (work_dir / 'iter_10.pth').exists()

    def before_the_oldest_goes(path):
        return path.name == 'iter_5.pth' and (work_dir / 'iter_15.pth').exists()

    moments = [
        ('replace', in_the_write, 'iter_5.pth'),
        ('replace', before_it_is_the_latest, 'iter_5.pth'),
        ('remove', before_the_oldest_goes, 'iter_15.pth'),
    ]
    for call, moment, latest in moments:
        runner = make_search(resume='auto')
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, call, dying(getattr(os, call), moment))
            with pytest.raises(KilledError):
                runner.train()
        assert Path((work_dir / 'last_checkpoint').read_text()).name == latest
    make_search(resume='auto').train()
    assert_same_end()
    assert checkpoints(work_dir) == ['iter_25.pth', 'iter_30.pth']


def dying(call, moment):
    def die(*paths):
        if moment(Path(paths[-1])):
            raise KilledError
        return call(*paths)

    return die


def checkpoints(work_dir):
    return sorted(path.name for path in work_dir.iterdir() if 'iter_' in path.name)


def test_killed_while_the_network_is_derived(make_search, whole, assert_same_end, monkeypatch):
    whole({})
    for name in ('measure_norms', 'save_checkpoint_file'):
        runner = make_search(resume='auto')
        with pytest.MonkeyPatch.context() as patch:
            die_at_call(patch, finish, name, 1)
            with pytest.raises(KilledError):
                runner.train()
        assert runner.iter == 30
    make_search(resume='auto').train()
    assert_same_end()


class InterruptingHook(Hook):
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_for_the_step_and_saves_it(make_search, whole, assert_same_end, tmp_path):
    whole({})
    for step in (3, 12, 13, 30):  # also the last one, before the report
        runner = make_search(resume='auto')
        runner.register_hook(InterruptingHook(step))
        with pytest.raises(KeyboardInterrupt, match=f'^interrupted after step {step}$'):
            runner.train()
        latest = Path((tmp_path / 'work/last_checkpoint').read_text())
        assert latest.name == f'iter_{step}.pth' in checkpoints(tmp_path / 'work')
        assert len(checkpoints(tmp_path / 'work')) <= 2
    make_search(resume='auto').train()
    assert_same_end()
    assert checkpoints(tmp_path / 'work') == ['iter_25.pth', 'iter_30.pth']


def test_from_a_checkpoint_of_choice(make_search, whole, assert_same_end, tmp_path, kill_after):
    whole({})
    shutil.copytree(tmp_path / 'whole', tmp_path / 'work')
    runner = make_search(resume=str(tmp_path / 'work/iter_25.pth'))
    kill_after(runner, 28)
    # what is newer than the choice is no longer part of the search
    runner = make_search(resume='auto')
    kill_after(runner, 28)
    assert len((tmp_path / 'work/history.jsonl').read_text().splitlines()) == 28 - 5
    make_search(resume='auto').train()
    assert_same_end()


@MODELS.register_module()
class DigitReader(BaseModel):
    """A model of somebody else's, whose SuperNet is no backbone."""

    def __init__(self, encoder, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.encoder = MODELS.build(encoder)
        self.head = nn.Linear(16, 10)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.head(self.encoder(inputs)[-1].mean((2, 3)))
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=nn.functional.cross_entropy(scores, labels))


def test_with_a_model_that_is_no_classifier(make_search, whole, assert_same_end, space, kill_after):
    options = {
        'model.architecture': dict(
            type='mmengine.DigitReader',
            encoder=dict(type='SuperNet', space=space),
            data_preprocessor=dict(type='ClsDataPreprocessor', mean=[77.89], std=[95.87]),
            _delete_=True,
        ),
        'data_preprocessor': None,
    }
    whole(options)
    runner = make_search(options)
    kill_after(runner, 13)
    make_search(options, resume='auto').train()
    assert_same_end()


def test_in_a_folder_that_was_moved(make_search, whole, assert_same_end, tmp_path, kill_after):
    whole({})
    runner = make_search(work_dir='before')
    kill_after(runner, 13)
    (tmp_path / 'before').rename(tmp_path / 'work')
    make_search(resume='auto').train()
    assert_same_end()


def test_without_a_checkpoint_it_starts_anew(
    make_search, whole, assert_same_end, history, kill_after
):
    whole({})
    rare = {'default_hooks.checkpoint.interval': 10}
    runner = make_search(rare)
    kill_after(runner, 8)
    assert len(history()) == 3
    make_search(resume='auto').train()
    assert_same_end()
