import os
import signal
import socket
import subprocess
import sys

import torch

from prunet_mm.spec import NetworkSpec

# What each process has in the end, and which files it wrote
WITNESS = """
import os
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from prunet_mm.search import finish

@HOOKS.register_module()
class WitnessHook(Hook):
    priority = 'LOWEST'

    def after_train(self, runner):
        model = runner.model
        end = dict(
            weights=model.state_dict(),
            layers={k: list(v.candidates) for k, v in model.supernet.layers().items()},
            rank=runner.rank,
            loss=float(runner.message_hub.get_scalar('train/weights/loss').current()),
        )
        torch.save(end, os.environ['WITNESS'] + f'.{runner.rank}')
"""


def test_two_processes_prune_the_same_and_write_once(root, tiny_config, history, tmp_path):
    (tmp_path / 'witness.py').write_text(WITNESS)
    options = {
        'custom_imports': dict(imports=['prunet_mm', 'witness']),
        'train_cfg.max_iters': 25,
    }
    config = tiny_config(options, hooks=dict(WitnessHook={}))
    work_dir = tmp_path / 'work'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    tool = [f'--master_port={port}', 'tools/search.py', config, '--work-dir', work_dir]
    settings = ['--launcher', 'pytorch', '--cfg-options', 'env_cfg.dist_cfg.backend=gloo']
    process = subprocess.Popen(
        [*launch, *map(str, tool), *settings],
        cwd=root,
        env=os.environ
        | dict(
            PYTHONPATH=str(tmp_path),
            WITNESS=str(tmp_path / 'end'),
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output

    ends = [torch.load(f'{tmp_path}/end.{rank}', weights_only=True) for rank in (0, 1)]
    assert [end['rank'] for end in ends] == [0, 1]
    assert ends[0]['loss'] != ends[1]['loss']  # each saw images of its own
    one, other = (end.pop('weights') for end in ends)
    assert ends[0]['layers'] == ends[1]['layers']
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, equal_nan=True)

    rows = history()
    assert [row['step'] for row in rows] == list(range(6, 26))
    assert {e['kind'] for row in rows for e in row['events']} >= {'candidate', 'move'}
    spec = NetworkSpec.load(work_dir / 'subnet.json')
    names = {f'stage{layer.stage}' for layer in spec.layers}
    assert names == {name.partition('.')[0] for name in ends[0]['layers']}
    assert len(spec.layers) == len(ends[0]['layers'])
    assert len(list(work_dir.glob('*/vis_data/scalars.json'))) == 1
    assert sorted(path.name for path in work_dir.glob('*.pth')) == [
        'iter_20.pth',
        'iter_25.pth',
        'searched.pth',
    ]
