import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunet_mm.engine.checkpoint import load_checkpoint_file

CONFIG = 'configs/cls/prunet_digits.py'
SHORT = (
    *('train_dataloader.dataset.indices=128', 'train_cfg.max_epochs=1'),
    *('train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1'),
)


@pytest.fixture
def launch(root, tmp_path):
    """Run one of the scripts with these arguments and variables, and other programs first."""

    def launch(name, *args, programs=Path(sys.executable).parent, **environment):
        known = {k: v for k, v in os.environ.items() if k not in ('PORT', 'GPUS', 'NNODES')}
        path = f'{programs}{os.pathsep}{os.environ["PATH"]}'
        return subprocess.run(
            [root / 'tools' / name, *map(str, args)],
            cwd=root,
            env={**known, 'PATH': path, 'OMP_NUM_THREADS': '1', **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return launch


@pytest.fixture
def recorded(launch, tmp_path):
    """As `launch`, but python and srun only write down their arguments, which are returned."""
    log = tmp_path / 'arguments.json'
    for name in ('python', 'srun'):
        program = tmp_path / 'bin' / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!{sys.executable}\nimport json, os, sys\n'
            f'words = [{name!r}, *sys.argv[1:]], os.environ["PYTHONPATH"]\n'
            f'json.dump(words, open({str(log)!r}, "w"))\n'
        )
        program.chmod(0o755)

    def run(name, *args, **environment):
        done = launch(name, *args, programs=tmp_path / 'bin', **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(log.read_text())

    return run


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def test_two_processes_train_on_this_machine(launch, tmp_path):
    done = launch(
        *('dist_train.sh', CONFIG, 2, '--work-dir', tmp_path, '--auto-scale-lr'),
        *('--cfg-options', *SHORT),
        PORT=free_port(),
    )
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob('*/*.log')
    assert 'the current batch size is 128' in log.read_text()  # 64 in each
    assert done.stdout.count('the first of 2 processes') == done.stdout.count('accuracy/top1') == 1
    assert load_checkpoint_file(tmp_path / 'epoch_1.pth')['meta']['iter'] == 1


def test_several_machines(recorded, root):
    words, path = recorded(
        *('dist_train.sh', 'a config.py', 4, '--resume', '--work-dir', 'a b'),
        **dict(NNODES='3', NODE_RANK='2', MASTER_ADDR='10.0.0.1', PORT='1234', PYTHONPATH='mine'),
    )
    assert words[:3] == ['python', '-m', 'torch.distributed.run']
    options = dict(word.split('=') for word in words[3:8])
    assert options == {
        '--nnodes': '3',
        '--node-rank': '2',
        '--nproc-per-node': '4',
        '--master-addr': '10.0.0.1',
        '--master-port': '1234',
    }
    assert words[8:] == [
        *(f'{root}/tools/train.py', 'a config.py', '--launcher', 'pytorch'),
        *('--resume', '--work-dir', 'a b'),
    ]
    first, *others = path.split(':')
    assert Path(first).resolve() == root
    assert others == ['mine']


def test_testing_in_several_processes(recorded, root):
    words, _ = recorded('dist_test.sh', 'config.py', 'weights.pth', 3, '--out', 'out.json')
    assert {'--nproc-per-node=3', '--nnodes=1', '--master-port=29500'} <= set(words)
    assert words[8:] == [
        *(f'{root}/tools/test.py', 'config.py', 'weights.pth', '--launcher', 'pytorch'),
        *('--out', 'out.json'),
    ]


def test_slurm_starts_a_process_per_gpu(recorded, root):
    words, _ = recorded('slurm_train.sh', 'gpu', 'my job', 'config.py', '--amp')
    assert words == [
        *('srun', '--partition=gpu', '--job-name=my job', '--ntasks=8', '--ntasks-per-node=8'),
        *('--gres=gpu:8', '--cpus-per-task=5', '--kill-on-bad-exit=1'),
        *('python', '-u', f'{root}/tools/train.py', 'config.py', '--launcher', 'slurm', '--amp'),
    ]
    words, _ = recorded(
        *('slurm_test.sh', 'gpu', 'job', 'config.py', 'weights.pth', '--tta'),
        **dict(GPUS='2', CPUS_PER_TASK='3', SRUN_ARGS='--time=10 --quiet'),
    )
    assert words[3:10] == [
        *('--ntasks=2', '--ntasks-per-node=2', '--gres=gpu:2', '--cpus-per-task=3'),
        *('--kill-on-bad-exit=1', '--time=10', '--quiet'),
    ]
    assert words[12:] == [
        *(f'{root}/tools/test.py', 'config.py', 'weights.pth', '--launcher', 'slurm', '--tta'),
    ]


def test_slurm_on_several_machines_and_the_work_dir_as_openmmlab_takes_it(recorded):
    words, _ = recorded(
        *('slurm_train.sh', 'gpu', 'job', 'config.py', 'a work dir', '--resume'),
        **dict(GPUS='16', GPUS_PER_NODE='4'),
    )
    assert words[3:6] == ['--ntasks=16', '--ntasks-per-node=4', '--gres=gpu:4']
    assert words[-3:] == ['--work-dir', 'a work dir', '--resume']


@pytest.mark.parametrize(
    ('name', 'args'),
    [
        ('dist_train.sh', []),
        ('dist_train.sh', ['config.py']),
        ('dist_train.sh', ['config.py', '--resume']),
        ('dist_train.sh', ['config.py', '0']),
        ('dist_test.sh', ['config.py', '2']),
        ('dist_test.sh', ['config.py', 'weights.pth', 'two']),
        ('slurm_train.sh', ['gpu', 'job']),
        ('slurm_test.sh', ['gpu', 'job', 'config.py']),
    ],
)
def test_missing_arguments_are_told_in_one_line(launch, name, args):
    done = launch(name, *args)
    assert done.returncode == 2
    assert done.stderr.startswith('usage: ') and done.stderr.count('\n') == 1
    assert f'{name} ' in done.stderr


def slow_to_score(rank):
    """Have the first process compute longer than the others wait for it in a step."""
    from mmpretrain.evaluation import Accuracy

    compute = Accuracy.compute_metrics

    def compute_slowly(*args):
        time.sleep(6)
        return compute(*args)

    if rank == 0:
        Accuracy.compute_metrics = compute_slowly


def test_the_score_that_two_processes_log_is_that_of_their_checkpoint(run_ranks, tool, tmp_path):
    """Each has normed images of its own, and the checkpoint holds the norms of the first."""
    command = ('tools/train.py', CONFIG, '--launcher', 'pytorch')
    few = ('train_dataloader.batch_size=4', 'train_dataloader.dataset.indices=40')
    norms = ('model.backbone.norm_cfg.type=BN', 'model.backbone.norm_cfg.momentum=0.9')
    options = ('--work-dir', tmp_path, '--cfg-options', *SHORT[1:], *few, *norms)
    patience = 'env_cfg.dist_cfg.timeout=4'
    for code, output in run_ranks(2, *command, *options, patience, first=slow_to_score):
        assert code == 0, output
    (scalars,) = tmp_path.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    (logged,) = (row['accuracy/top1'] for row in rows if 'accuracy/top1' in row)
    out = tmp_path / 'metrics.json'
    told = ('--out', out, '--out-item', 'metrics')
    code, _, err = tool('test', CONFIG, tmp_path / 'epoch_1.pth', *told, *options)
    assert code == 0, err
    assert json.loads(out.read_text())['accuracy/top1'] == logged
