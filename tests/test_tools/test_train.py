import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader

from prunet_mm.engine import bf16_optim_wrapper
from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import ConfigError
from prunet_mm.spec import NetworkSpec

CONFIG = 'configs/cls/prunet_digits.py'
SHORT = ('train_dataloader.dataset.indices=128', 'default_hooks.checkpoint.interval=1')


class Malicious:
    def __reduce__(self):
        return os.mkdir, ('executed',)


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--cfg-options', 'model.backbone.arch=prunet_p9'], 'no network "prunet_p9" in the zoo'),
        (['--cfg-options', 'model.backbone.arch=nowhere/subnet.json'], 'nowhere/subnet.json'),
        (['--cfg-options', 'model.backbone.type=PRUNett'], 'PRUNett is not in the mmpretrain::mod'),
        (['--cfg-options', 'optim_wrapper.optimizer.lr=1e30', *SHORT], 'loss is nan at step 2'),
        (
            ['--cfg-options', 'train_dataloader.collate_fn.type=default_colate'],
            'train_dataloader.collate_fn: there is no default_colate',
        ),
        (['--cfg-options', 'val_evaluator=None'], 'should be either all None or not None'),
        (['--amp'], 'needs a CUDA device'),
        (['--launcher', 'pytorch'], 'RANK is not set'),
    ],
)
def test_bad_input_is_one_sentence(refused, tmp_path, monkeypatch, args, words):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert words in refused('--work-dir', tmp_path / 'work', *args, name='train', config=CONFIG)


def test_bfloat16_is_refused_where_it_would_be_emulated(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(bf16_optim_wrapper, 'computes_bf16', lambda device: False)
    args = ('--amp', 'bfloat16', '--work-dir', tmp_path)
    assert 'does not compute in it' in refused(*args, name='train', config=CONFIG)


def test_a_config_that_is_missing(refused):
    sentence = refused(name='train', config='configs/cls/prunet_digit.py')
    assert sentence.startswith('configs/cls/prunet_digit.py: there is no such config file; near')


def test_an_option_without_a_value(tool):
    code, _, err = tool('train', CONFIG, '--cfg-options', 'model.backbone.arch')
    assert code == 2
    assert err.splitlines()[-1].endswith("takes KEY=VALUE, not 'model.backbone.arch'")


def test_nothing_in_a_checkpoint_is_executed(refused, root, tmp_path):
    malicious = tmp_path / 'malicious.pth'
    torch.save(dict(state_dict=Malicious()), malicious)
    sentence = refused('--work-dir', tmp_path, '--resume', malicious, name='train', config=CONFIG)
    assert sentence.startswith(f'{malicious}: refused')
    assert not (root / 'executed').exists()


def test_a_found_network_is_trained_and_the_run_goes_on(tool, root, tmp_path):
    found = NetworkSpec.load(root / 'configs/cls/prunet_digits.json').to_dict()
    found['layers'][1]['hidden'] = 40
    NetworkSpec.from_dict(found).save(tmp_path / 'subnet.json')
    work_dir = tmp_path / 'work'

    def train(epochs, *args):
        options = (f'model.backbone.arch={tmp_path}/subnet.json', f'train_cfg.max_epochs={epochs}')
        command = ('train', CONFIG, '--work-dir', work_dir, *args)
        code, out, err = tool(*command, '--cfg-options', *options, *SHORT)
        assert code == 0, err
        return out

    assert 'accuracy/top1' in train(1)
    first = load_checkpoint_file(work_dir / 'epoch_1.pth')
    assert first['state_dict']['backbone.stage1.1.expand.conv.weight'].shape[0] == 40
    assert 'goes on   after epoch 1/2' in train(2, '--resume')
    assert load_checkpoint_file(work_dir / 'epoch_2.pth')['meta']['iter'] == 4


def test_a_copied_folder_goes_on_from_its_own_checkpoint_as_the_config_says(
    tool, one_epoch, tmp_path
):
    _, work = one_epoch('--no-validate')
    shutil.copytree(work, copy := tmp_path / 'copy')
    for log in copy.glob('*/vis_data/scalars.json'):
        log.unlink()
    changed = ('train_cfg.max_epochs=2', 'optim_wrapper.optimizer.lr=1e-3')
    code, out, err = tool(
        *('train', CONFIG, '--work-dir', copy, '--no-validate', '--resume', '--cfg-options'),
        *(*SHORT, *changed, 'default_hooks.logger.interval=1'),
    )
    assert code == 0, err
    logs = ''.join(path.read_text() for path in copy.glob('*/*.log'))
    assert f'Load checkpoint from {copy}/epoch_1.pth' in logs
    assert str(work) + '/' not in out
    assert 'optim_wrapper.optimizer.lr was 0.004 and is 0.001' in out
    (log,) = copy.glob('*/vis_data/scalars.json')
    rates = [row['lr'] for row in map(json.loads, log.open()) if 'lr' in row]
    # The second epoch of two: cosines from the middle of 1e-3 to its end.
    assert len(rates) == 2 and 5e-4 <= rates[0] <= 1e-3 and rates[1] < rates[0]


def test_a_start_from_weights_is_not_lost_by_resume(refused, tmp_path):
    args = ('--resume', '--cfg-options', f'load_from={tmp_path}/nowhere.pth')
    sentence = refused('--work-dir', tmp_path / 'work', *args, name='train', config=CONFIG)
    assert sentence.startswith(f'{tmp_path}/nowhere.pth: there is no such checkpoint')


def test_ctrl_c_names_the_command_that_goes_on(root, tmp_path):
    command = ['tools/train.py', CONFIG, '--work-dir', str(tmp_path), '--cfg-options', *SHORT]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / 'last_checkpoint').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.decode().splitlines()[-1].startswith('interrupted; to go on: python')
    assert stderr.decode().rstrip().endswith('--resume')
    assert b'Traceback' not in stderr


@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader'])
def test_images_that_are_missing(refused, tmp_path, loader):
    options = (f'{loader}.dataset.data_root={tmp_path}/nowhere', 'data_layout=ROOT/CLASS/IMAGE.jpg')
    args = ('--work-dir', tmp_path / 'work', '--cfg-options', *options)
    sentence = refused(*args, name='train', config=CONFIG)
    assert f'The images are missing: {tmp_path}/nowhere is no folder' in sentence
    assert 'expected are ROOT/CLASS/IMAGE.jpg' in sentence
    assert not (tmp_path / 'work').exists()


@pytest.fixture
def one_epoch(tool, tmp_path):
    """Train for one epoch of two steps; returns the log's lines and the work dir."""

    def train(*args, options=(), folder='work'):
        settings = ('train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', *SHORT, *options)
        work = tmp_path / folder
        code, out, err = tool(
            'train', CONFIG, '--work-dir', work, *args, '--cfg-options', *settings
        )
        assert code == 0, err
        (log,) = work.glob('*/vis_data/scalars.json')
        return [json.loads(line) for line in log.open()], work

    return train


def test_learning_rate_scaled_by_the_batch_size_and_no_validation(one_epoch):
    plain, _ = one_epoch('--no-validate', folder='plain')
    scaled, work = one_epoch(
        *('--no-validate', '--auto-scale-lr'), options=['auto_scale_lr.base_batch_size=16']
    )
    assert not any('accuracy/top1' in row for row in plain + scaled)
    assert (work / 'epoch_1.pth').exists()
    rates = [[row['lr'] for row in rows if 'lr' in row] for rows in (plain, scaled)]
    # Every step of a schedule that starts with a warm-up, for it is relative to the optimizer's.
    assert rates[1] == pytest.approx([4 * rate for rate in rates[0]])
    assert rates[0][0] == pytest.approx(0.1 * 4e-3)


def test_auto_scale_lr_needs_a_base(refused, tmp_path):
    args = ('--auto-scale-lr', '--work-dir', tmp_path, '--cfg-options', 'auto_scale_lr=None')
    sentence = refused(*args, name='train', config=CONFIG)
    assert sentence == f'{CONFIG}: --auto-scale-lr needs auto_scale_lr.base_batch_size'


@pytest.mark.parametrize(
    ('flags', 'pinned', 'kept'),
    [([], True, True), (['--no-pin-memory', '--no-persistent-workers'], False, False)],
)
def test_how_images_are_loaded(tool, tmp_path, monkeypatch, flags, pinned, kept):
    class Loader(DataLoader):
        def __init__(self, *args, pin_memory, persistent_workers, **kwargs):
            raise ConfigError(f'{pin_memory} {persistent_workers}')

    monkeypatch.setattr('mmengine.runner.runner.DataLoader', Loader)
    settings = ('train_dataloader.num_workers=1', 'train_dataloader.pin_memory=True')
    options = ('--cfg-options', *settings)
    code, _, err = tool('train', CONFIG, '--work-dir', tmp_path, *flags, *options)
    assert (code, err) == (2, f'error: {pinned} {kept}\n')


@pytest.fixture
def trained(one_epoch):
    return one_epoch('--no-validate', folder='trained')[1] / 'epoch_1.pth'


def test_a_training_starts_from_weights_with_another_head(tool, root, trained, tmp_path):
    config, work = tmp_path / 'ema.py', tmp_path / 'work'
    config.write_text(
        f"_base_ = '{root}/{CONFIG}'\n"
        f"model = dict(backbone=dict(arch='{root}/configs/cls/prunet_digits.json'))\n"
        "custom_hooks = [dict(type='EMAHook')]\n"  # it would refuse another head
    )
    saved = load_checkpoint_file(trained)['state_dict']
    saved |= {'head.fc.weight': torch.zeros(7, 48), 'head.fc.bias': torch.zeros(7)}
    torch.save(dict(state_dict=saved), tmp_path / 'seven.pth')
    code, _, err = tool(
        *('train', config, '--work-dir', work, '--no-validate', '--cfg-options', *SHORT),
        *(f'load_from={tmp_path}/seven.pth', 'optim_wrapper.optimizer.lr=1e-12'),
        'train_cfg.max_epochs=1',
    )
    assert code == 0, err
    weights = load_checkpoint_file(work / 'epoch_1.pth')['state_dict']
    names = [name for name in weights if name.startswith('backbone.') and 'conv.weight' in name]
    assert names
    for name in names:
        torch.testing.assert_close(weights[name], saved[name])
    assert weights['head.fc.weight'].shape == (10, 48)


@pytest.mark.parametrize('way', ['load_from', 'resume', 'init_cfg', 'init_cfg of the backbone'])
def test_a_checkpoint_of_another_network(refused, trained, tmp_path, way):
    saved = load_checkpoint_file(trained)
    name = 'backbone.stage1.1.expand.conv.weight'
    saved['state_dict'][name] = saved['state_dict'][name][:40]
    other = tmp_path / 'other.pth'
    torch.save(saved, other)
    args = {
        'load_from': ['--cfg-options', f'load_from={other}'],
        'resume': ['--resume', other],
        'init_cfg': [
            *('--cfg-options', 'model.init_cfg.type=Pretrained'),
            f'model.init_cfg.checkpoint={other}',
        ],
        'init_cfg of the backbone': [
            *('--cfg-options', 'model.backbone.init_cfg.type=Pretrained'),
            f'model.backbone.init_cfg.checkpoint={other}',
            'model.backbone.init_cfg.prefix=backbone.',
        ],
    }
    sentence = refused('--work-dir', tmp_path, *args[way], name='train', config=CONFIG)
    assert "stage1.1.expand.conv.weight' has shape (40, 24, 1, 1)" in sentence
    if way in ('load_from', 'resume'):
        assert sentence.startswith(f'{other}: ')


def test_what_holds_no_progress_is_not_resumed(refused, trained, tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(load_checkpoint_file(trained)['state_dict'], weights)
    sentence = refused('--work-dir', tmp_path, '--resume', weights, name='train', config=CONFIG)
    assert sentence.startswith(f'{weights}: holds no progress of a training')
    assert f'set load_from={weights} instead' in sentence


@pytest.mark.parametrize('option', ['load_from', 'model.init_cfg.checkpoint'])
def test_a_checkpoint_that_is_missing(refused, tmp_path, option):
    options = ['--cfg-options', f'{option}={tmp_path}/nowhere.pth']
    if 'init_cfg' in option:
        options.append('model.init_cfg.type=Pretrained')
    sentence = refused('--work-dir', tmp_path, *options, name='train', config=CONFIG)
    assert sentence.startswith(f'{tmp_path}/nowhere.pth: there is no such checkpoint')
