"""What trainings show on the screen, by default and with --verbose."""

import re

import pytest

CONFIG = 'configs/cls/prunet_digits.py'
CONTROL = re.compile('[\x00-\x09\x0b-\x1f\x7f]')  # all but the end of a line
OF_THE_LOG = ('Hooks will be executed', '"FileClient" will be', 'Epoch(train) [1][1/2]')


@pytest.fixture
def trained(tool, quick_start, tmp_path):
    """Train for some steps on 128 digits; returns what is on the screen and in the log file."""

    def train(*args, options=()):
        settings = ('train_dataloader.dataset.indices=128', 'default_hooks.logger.interval=1')
        code, out, err = tool(
            *('train', CONFIG, '--work-dir', tmp_path / 'work', *args),
            *('--cfg-options', 'train_cfg.val_interval=1', *settings, *options),
        )
        assert code == 0, err
        (log,) = tmp_path.glob('work/*/*.log')
        return out, log.read_text()

    return train


def test_a_training_tells_what_runs_how_far_it_is_and_where_things_are(trained, tmp_path):
    options = ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.save_best=auto']
    out, log = trained(options=options)
    assert not CONTROL.search(out)
    lines = out.splitlines()
    assert lines[0] == f'config    {CONFIG}'
    assert lines[1].startswith(f'log       {tmp_path}/work/')
    assert lines[2] == 'data      Digits train, 128 images; Digits val, 360 images'
    assert lines[3].startswith('device    ')
    assert re.fullmatch(r'epoch 1/2   25%  \d:\d\d:\d\d left  loss \d\.\d{4}', lines[4])
    assert any(re.fullmatch(r'epoch 1/2: accuracy/top1 [\d.]+, the best so far', x) for x in lines)
    assert f'last      {tmp_path}/work/epoch_2.pth' in lines
    assert any(x.startswith(f'best      {tmp_path}/work/best_accuracy_top1_epoch_') for x in lines)
    assert not [words for words in (*OF_THE_LOG, 'mmengine -', 'OneDL') if words in out]
    assert all(words in log for words in OF_THE_LOG)


def test_verbose_shows_what_the_log_gets(trained):
    out, _ = trained('--verbose', options=['train_cfg.max_epochs=1'])
    assert all(words in out for words in OF_THE_LOG)
    assert 'device    ' not in out


def test_an_early_end_says_why(trained):
    stop = dict(type='EarlyStoppingHook', monitor='accuracy/top1', patience=1, min_delta=200)
    options = [f'custom_hooks.0.{key}={value}' for key, value in stop.items()]
    out, _ = trained(options=['train_cfg.max_epochs=9', *options])
    assert 'the monitored metric did not improve' in out
    assert 'epoch 2/9: accuracy/top1' in out
    assert 'epoch 3/9' not in out
