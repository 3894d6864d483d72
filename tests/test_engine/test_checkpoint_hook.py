import os
import shutil
from itertools import count
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from prunet_mm.engine.checkpoint import load_checkpoint_file, resume_point
from prunet_mm.engine.checkpoint_hook import AtomicCheckpointHook
from prunet_mm.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.usefixtures('mmengine_as_it_was')


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x, mode):
        y = self.layer(x)
        return dict(loss=y.square().mean()) if mode == 'loss' else list(y)


class Improving(BaseMetric):
    """Better every time, so that the best checkpoint is always the newest."""

    default_prefix = 'test'

    def __init__(self):
        super().__init__()
        self.score = 0

    def process(self, *_):
        self.results.append(0)

    def compute_metrics(self, _):
        self.score += 1
        return dict(score=self.score)


class StopError(Exception):
    pass


@pytest.fixture
def build(tmp_path, request):
    names = (f'{request.node.name}{i}' for i in count())  # mmengine keeps one logger for each

    def build(iters=6, hook=(), folder='', **changes):
        checkpoint = dict(type='AtomicCheckpointHook', interval=2, by_epoch=False) | dict(hook)
        loader = dict(
            dataset=[dict(x=torch.tensor(x)) for x in ([1.0, 1.0], [0.0, 1.0], [2.0, -1.0])],
            batch_size=2,
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='default_collate'),
        )
        return Runner(
            model=Regression(),
            work_dir=str(tmp_path / folder),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=False, max_iters=iters, val_interval=2),
            val_dataloader=loader | dict(sampler=dict(type='DefaultSampler', shuffle=False)),
            val_cfg=dict(),
            val_evaluator=Evaluator(Improving()),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, end=1),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=1, T_max=5),
                dict(type='MultiStepLR', by_epoch=False, milestones=[3, 3]),
            ],
            default_hooks=dict(checkpoint=checkpoint, logger=dict(type='LoggerHook', interval=1)),
            custom_hooks=[dict(type='EMAHook')],
            experiment_name=next(names),
            randomness=dict(seed=0),
            log_level='ERROR',
            **changes,
        )

    return build


def checkpoints(folder):
    return sorted(file for file in os.listdir(folder) if file.endswith(('.pth', '.tmp')))


def test_keeps_the_last_two_and_says_which_is_the_latest(build, tmp_path):
    build().train()
    assert checkpoints(tmp_path) == ['iter_4.pth', 'iter_6.pth']
    assert Path(tmp_path, 'last_checkpoint').read_text() == str(tmp_path / 'iter_6.pth')
    assert resume_point(tmp_path) == tmp_path / 'iter_6.pth'


def test_what_a_runner_saves_loads_as_plain_data(build, tmp_path):
    runner = build()
    runner.train()
    checkpoint = load_checkpoint_file(tmp_path / 'iter_6.pth')
    assert checkpoint['meta']['iter'] == 6
    assert set(checkpoint) >= {'optimizer', 'param_schedulers', 'message_hub', 'ema_state_dict'}
    loss = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(loss, HistoryBuffer)
    assert loss.data[0].tolist() == runner.message_hub.get_scalar('train/loss').data[0].tolist()


def test_a_resumed_run_ends_like_an_uninterrupted_one(build, tmp_path):
    def weights(checkpoint):
        return checkpoint['state_dict'] | checkpoint['optimizer']['state'][0]

    build().train()
    whole = weights(load_checkpoint_file(tmp_path / 'iter_6.pth'))
    (tmp_path / 'iter_6.pth').unlink()
    build(load_from=str(tmp_path / 'iter_4.pth'), resume=True).train()
    resumed = weights(load_checkpoint_file(tmp_path / 'iter_6.pth'))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert checkpoints(tmp_path) == ['iter_4.pth', 'iter_6.pth']


def test_a_run_killed_in_a_save_resumes_and_clears_what_is_too_much(build, tmp_path, monkeypatch):
    def stop(*_):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr('mmengine.fileio.LocalBackend.remove', stop)
        with pytest.raises(StopError):
            build().train()
    assert checkpoints(tmp_path) == ['iter_2.pth', 'iter_4.pth', 'iter_6.pth']
    assert Path(tmp_path, 'last_checkpoint').read_text().endswith('iter_6.pth')

    build(iters=7, resume=True).train()
    assert checkpoints(tmp_path) == ['iter_6.pth', 'iter_7.pth']


def test_a_save_that_fails_deletes_nothing(build, tmp_path, monkeypatch):
    build(iters=4).train()

    def stop(*_):
        raise StopError

    runner = build(resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', stop)
        with pytest.raises(StopError):
            runner.train()
    assert checkpoints(tmp_path) == ['iter_2.pth', 'iter_4.pth']
    assert Path(tmp_path, 'last_checkpoint').read_text().endswith('iter_4.pth')


def test_the_best_is_replaced_only_by_one_that_is_complete(build, tmp_path, monkeypatch):
    best = dict(save_best='test/score', rule='greater')
    build(iters=2, hook=best).train()
    assert checkpoints(tmp_path) == ['best_test_score_iter_2.pth', 'iter_2.pth']

    original = Runner.save_checkpoint

    def fail_at_the_best(self, out_dir, filename, *args, **kwargs):
        if filename.startswith('best'):
            raise StopError
        return original(self, out_dir, filename, *args, **kwargs)

    runner = build(iters=4, hook=best, resume=True)
    runner.val_evaluator.metrics[0].score = 1
    with monkeypatch.context() as patch:
        patch.setattr(Runner, 'save_checkpoint', fail_at_the_best)
        with pytest.raises(StopError):
            runner.train()
    assert 'best_test_score_iter_2.pth' in checkpoints(tmp_path)

    (tmp_path / 'iter_4.pth').unlink()
    runner = build(iters=4, hook=best, load_from=str(tmp_path / 'iter_2.pth'), resume=True)
    runner.val_evaluator.metrics[0].score = 1
    runner.train()
    assert checkpoints(tmp_path) == [
        'best_test_score_iter_4.pth',
        'iter_2.pth',
        'iter_4.pth',
    ]


def test_a_best_by_a_metric_that_is_not_found_is_one_sentence(build):
    words = r"save_best is 'test/scoer', which .* but test/score: name one of these"
    with pytest.raises(ConfigError, match=words):
        build(hook=dict(save_best='test/scoer', rule='greater')).train()


def test_the_best_of_a_run_that_was_copied_stays(build, tmp_path):
    best = dict(save_best='test/score', rule='greater')
    build(iters=2, hook=best).train()
    shutil.copytree(tmp_path, tmp_path / 'copy')
    runner = build(
        iters=4, hook=best, folder='copy', load_from=str(tmp_path / 'copy/iter_2.pth'), resume=True
    )
    runner.val_evaluator.metrics[0].score = 1
    runner.train()
    assert 'best_test_score_iter_2.pth' in checkpoints(tmp_path)
    assert [name for name in checkpoints(tmp_path / 'copy') if name.startswith('best')] == [
        'best_test_score_iter_4.pth'
    ]


def test_a_runner_that_only_validates_saves_nothing(build, tmp_path):
    assert build().val() == {'test/score': 1}
    assert checkpoints(tmp_path) == []


def test_all_are_kept_on_request(build, tmp_path):
    build(hook=dict(max_keep_ckpts=-1, interval=1)).train()
    assert checkpoints(tmp_path) == [f'iter_{i}.pth' for i in range(1, 7)]


def test_a_malicious_checkpoint_is_refused_by_a_runner(build, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "marker"}',)

    torch.save(dict(state_dict=Evil()), tmp_path / 'evil.pth')
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=r'posix\.system'):
            build(load_from=str(tmp_path / 'evil.pth'), resume=resume).train()
    assert not (tmp_path / 'marker').exists()


def test_resuming_does_not_run_the_text_of_a_config(build, tmp_path):
    build(iters=2).train()
    checkpoint = load_checkpoint_file(tmp_path / 'iter_2.pth')
    checkpoint['meta']['config'] = f'open({str(tmp_path / "marker")!r}, "w")'
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    build(iters=3, resume=True).train()
    assert not (tmp_path / 'marker').exists()


def test_the_hook_counts_epochs_too(build, tmp_path):
    hook = AtomicCheckpointHook(interval=1)
    assert (hook.max_keep_ckpts, hook.by_epoch) == (2, True)
    assert hook.filename_tmpl.format(3) == 'epoch_3.pth'
