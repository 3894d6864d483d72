import errno
import os
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmengine.visualization import WandbVisBackend
from mmpretrain.evaluation import Accuracy
from torch.utils.data import DataLoader

from prunet_mm.engine.explain import explain
from prunet_mm.errors import ConfigError, DataError, SpecError


def test_what_an_error_was_raised_from_is_found():
    error = RuntimeError('outer')
    error.__cause__ = SpecError('inner')
    assert explain(error) == 'inner'


def test_a_wrapper_of_ours_is_preferred_to_what_it_wraps():
    error = ConfigError('config.py: no such network')
    error.__cause__ = SpecError('no such network')
    assert explain(error) == 'config.py: no such network'


def test_the_prefix_that_mmengine_puts_before_an_error_is_left_out():
    error = SpecError('class `PRUNet` in prunet_mm/models/prunet.py: bad kernel')
    error.__context__ = SpecError('bad kernel')
    assert explain(error) == 'bad kernel'


def test_a_data_workers_traceback_is_left_out():
    text = (
        'Caught DataError in worker 0.\nTraceback:\n  line 1\nprunet_mm.errors.DataError: no data'
    )
    assert explain(DataError(text)) == 'no data'


def test_a_full_disk_is_no_defect():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'work/vis_data/scalars.json')
    assert explain(error) == (
        'work/vis_data/scalars.json cannot be written: No space left on device; free some space '
        '(a training or a search goes on with --resume)'
    )
    assert explain(OSError(errno.EBADF, os.strerror(errno.EBADF))) is None


def test_a_process_that_waited_in_vain_says_for_how_long():
    late = 'Timed out waiting 60000ms for recv operation to complete'
    sentence = explain(RuntimeError(f'[/x/gloo/transport/tcp/unbound_buffer.cc:78] {late}'))
    assert sentence.startswith('another process of this run has not answered for 60 s')
    assert 'env_cfg.dist_cfg.timeout' in sentence and '--resume' in sentence


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (
            RuntimeError('[/x/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:5'),
            'Connection closed by peer [::1]:5',
        ),
        (torch.distributed.DistBackendError('NCCL error\nin a line'), 'NCCL error'),
    ],
)
def test_a_process_that_lost_another_one_says_so(error, reason):
    sentence = explain(error)
    assert sentence.startswith(
        f'another process of this run has ended or does not answer ({reason}'
    )
    assert '\n' not in sentence
    assert explain(RuntimeError('a defect of ours')) is None


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        (dict(type='Nothing'), 'Nothing is not in the'),
        (dict(depth=50), 'must contain the key "type"'),
        (dict(type='Block', widht=3), "unexpected keyword argument 'widht'"),
    ],
)
def test_what_a_registry_cannot_build_is_the_configs_fault(config, sentence):
    registry = Registry('test')
    registry.register_module(module=type('Block', (), {'__init__': lambda self, width=1: None}))
    with pytest.raises((KeyError, TypeError)) as raised:
        registry.build(config)
    assert sentence in explain(raised.value)
    assert '\n' not in explain(raised.value)


def test_a_type_error_inside_of_what_was_built_is_a_defect():
    registry = Registry('test')
    registry.register_module(name='Broken', module=lambda: len(3))
    with pytest.raises(TypeError) as raised:
        registry.build(dict(type='Broken'))
    assert explain(raised.value) is None


@pytest.mark.parametrize(
    ('contradict', 'sentence'),
    [
        (lambda: DataLoader([1], prefetch_factor=2), 'prefetch_factor option could only be'),
        (lambda: Runner({}, 'work', train_cfg=dict(max_epochs=1)), 'either all None or not'),
        (lambda: Accuracy.calculate(torch.rand(3, 2), [0, 1, 1], (5,)), 'Top-5 accuracy is'),
    ],
)
def test_settings_that_contradict_each_other_are_the_configs_fault(contradict, sentence):
    with pytest.raises((ValueError, RuntimeError)) as raised:
        contradict()
    found = explain(raised.value)
    assert sentence in found and found.endswith(': check the config')
    assert '\n' not in found and len(found) < 200


def test_what_a_place_for_curves_needs_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(ImportError) as raised:
        WandbVisBackend(save_dir=str(tmp_path))._init_env()
    assert 'pip install wandb' in explain(raised.value)


def test_a_prefix_that_a_checkpoint_does_not_have_is_the_configs_fault(tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict={'backbone.weight': torch.zeros(1)}), path)
    module = BaseModule(init_cfg=dict(type='Pretrained', checkpoint=path, prefix='neck.'))
    with pytest.raises(AssertionError) as raised:
        module.init_weights()
    assert explain(raised.value) == (
        'neck. is not in the pretrained model: check the prefix in init_cfg'
    )


@pytest.mark.parametrize(
    'before', ['', 'Caught AssertionError in worker 0.\nTraceback:\n  AssertionError: ']
)
def test_an_image_that_cannot_be_read_is_named(before):
    with pytest.raises(AssertionError) as raised:
        raise AssertionError(f'{before}failed to load image: data/1.jpg\n')
    assert explain(raised.value) == 'data/1.jpg: is not an image that can be read'


def test_an_empty_image_leads_to_the_tool_that_tells_which():
    with pytest.raises(cv2.error) as raised:
        cv2.imdecode(np.zeros(0, np.uint8), cv2.IMREAD_COLOR)
    assert 'tools/check_dataset.py tells which' in explain(raised.value)


def test_a_batch_too_small_for_a_norm_is_the_configs_fault():
    with pytest.raises(ValueError) as raised:
        torch.nn.BatchNorm2d(4)(torch.zeros(1, 4, 1, 1))
    sentence = explain(raised.value)
    assert 'size torch.Size([1, 4, 1, 1])' in sentence
    assert 'drop_last=True' in sentence
