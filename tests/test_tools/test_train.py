import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.spec import NetworkSpec

CONFIG = 'configs/cls/prunet_digits.py'
SHORT = ('train_dataloader.dataset.indices=128', 'default_hooks.checkpoint.interval=1')


class Malicious:
    def __reduce__(self):
        return os.mkdir, ('executed',)


@pytest.fixture(scope='module')
def bad_inputs(root, tmp_path_factory):
    """Ends of command lines that cannot work, by name; two run at a time, for they start slowly."""
    folder = tmp_path_factory.mktemp('bad')
    torch.save(dict(state_dict=Malicious()), folder / 'malicious.pth')
    options = [CONFIG, '--cfg-options']
    commands = {
        'missing config': ['configs/cls/prunet_digit.py'],
        'no key=value': [*options, 'model.backbone.arch'],
        'unknown arch': [*options, 'model.backbone.arch=prunet_p9'],
        'missing arch file': [*options, f'model.backbone.arch={folder}/subnet.json'],
        'unknown type': [*options, 'model.backbone.type=PRUNett'],
        'malicious checkpoint': [CONFIG, '--resume', folder / 'malicious.pth'],
        'loss not finite': [*options, 'optim_wrapper.optimizer.lr=1e30', *SHORT],
    }
    if not torch.cuda.is_available():
        commands['amp without cuda'] = [CONFIG, '--amp']

    def end(command):
        return subprocess.run(
            [sys.executable, root / 'tools/train.py', *command, '--work-dir', folder / 'work'],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=300,
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(end, commands.values()), strict=True))


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('missing config', 'prunet_digit.py: there is no such config file'),
        ('no key=value', "takes KEY=VALUE, not 'model.backbone.arch'"),
        ('unknown arch', 'no network "prunet_p9" in the zoo, known are'),
        ('missing arch file', 'subnet.json'),
        ('unknown type', 'PRUNett is not in the mmpretrain::model registry'),
        ('malicious checkpoint', 'malicious.pth: refused'),
        ('loss not finite', 'loss is not finite: loss is nan at step 2'),
        ('amp without cuda', 'needs a CUDA device'),
    ],
)
def test_bad_input_ends_in_one_sentence(bad_inputs, name, sentence):
    if name not in bad_inputs:
        pytest.skip('there is a CUDA device here')
    ended = bad_inputs[name]
    assert ended.returncode == 2, ended.stderr
    assert 'Traceback' not in ended.stderr
    errors = [line for line in ended.stderr.splitlines() if 'error:' in line]
    assert len(errors) == 1, ended.stderr
    assert sentence in errors[0]


def test_nothing_in_a_checkpoint_is_executed(bad_inputs, root):
    assert 'malicious checkpoint' in bad_inputs
    assert not (root / 'executed').exists()


def test_a_found_network_is_trained_and_the_run_goes_on(run_python, root, tmp_path):
    found = NetworkSpec.load(root / 'configs/cls/prunet_digits.json').to_dict()
    found['layers'][1]['hidden'] = 40
    NetworkSpec.from_dict(found).save(tmp_path / 'subnet.json')
    work_dir = tmp_path / 'work'

    def train(epochs, *args):
        options = (f'model.backbone.arch={tmp_path}/subnet.json', f'train_cfg.max_epochs={epochs}')
        command = ('tools/train.py', CONFIG, '--work-dir', work_dir, *args)
        result = run_python(*command, '--cfg-options', *options, *SHORT)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert 'accuracy/top1' in train(1)
    first = load_checkpoint_file(work_dir / 'epoch_1.pth')
    assert first['state_dict']['backbone.stage1.1.expand.conv.weight'].shape[0] == 40
    assert 'resumed epoch: 1' in train(2, '--resume')
    assert load_checkpoint_file(work_dir / 'epoch_2.pth')['meta']['iter'] == 4


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


def test_images_that_are_missing(run_python, tmp_path):
    work = ('--work-dir', tmp_path / 'work')
    options = (f'train_dataloader.dataset.data_root={tmp_path}/nowhere',)
    result = run_python(
        'tools/train.py', 'configs/cls/prunet_cifar10.py', *work, '--cfg-options', *options
    )
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()[-1:]
    assert line.startswith('error: The images are missing')
    assert 'data/cifar10/train/CLASS/IMAGE.jpg' in line
    assert 'Traceback' not in result.stderr
