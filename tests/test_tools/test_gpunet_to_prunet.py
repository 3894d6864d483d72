import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.models.gpunet_keys import slots
from prunet_mm.spec import load_zoo, zoo_names

CONVERTER = 'model_converters/gpunet_to_prunet'


def weights_of(name, start=0):
    """A state dict in NVIDIA's layout; every tensor holds a number of its own, in little memory."""
    return OrderedDict(
        (slot.nvidia, torch.tensor(start + index, dtype=dtype(slot.nvidia)).expand(slot.shape))
        for index, slot in enumerate(slots(load_zoo(name)))
    )


def dtype(key):
    return torch.int64 if key.endswith('num_batches_tracked') else torch.float32


@pytest.fixture
def convert(tool, tmp_path):
    """Save something, convert it and return what was written and what was printed."""

    def run(content, *args, src='src.pth.tar', dst='dst.pth'):
        torch.save(content, tmp_path / src)
        code, out, err = tool(CONVERTER, tmp_path / src, tmp_path / dst, *args)
        assert code == 0, err
        assert out.endswith(f'wrote {tmp_path / dst}\n')
        return load_checkpoint_file(tmp_path / dst), out

    return run


@pytest.fixture
def refused(tool, tmp_path):
    """Convert something that is refused, onto a file; returns the one sentence."""

    def run(content, *args):
        src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
        if isinstance(content, bytes):
            src.write_bytes(content)
        elif content is not None:
            torch.save(content, src)
        dst.write_bytes(b'as it was')
        code, out, err = tool(CONVERTER, src, dst, *args)
        assert code == 2, (code, out, err)
        assert err.startswith(f'error: {src}: ') and err.count('\n') == 1, err
        assert out == ''
        assert dst.read_bytes() == b'as it was'
        assert sorted(path.name for path in tmp_path.iterdir()) in (
            ['dst.pth'],
            ['dst.pth', 'src.pth'],
        )
        return err.removeprefix(f'error: {src}: ').rstrip()

    return run


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert found[key].shape == value.shape, key
        assert torch.equal(found[key], value), key


def test_a_converted_checkpoint_loads_into_the_classifier_with_no_key_left(convert, tmp_path):
    source = weights_of('prunet_p0')
    convert(source)
    tail = dict(in_channels=704, channels=1984)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='PRUNet', arch='prunet_p0'),
            neck=dict(type='PRUNetTail', **tail),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=1984),
        )
    )
    load_checkpoint(model, str(tmp_path / 'dst.pth'), strict=True)
    for ours, theirs in {
        'backbone.stem.0.conv.bn.running_var': 'network.head: 2.net.1.running_var',
        'backbone.stage4.1.depthwise.conv.weight': 'network.stage: 4 layer10.conv_dw.weight',
        'backbone.stage5.3.project.bn.bias': 'network.stage: 5 layer15.bn3.bias',
        'neck.conv.bn.num_batches_tracked': 'network. layer17.net.1.num_batches_tracked',
        'head.fc.bias': 'network. layer17.net.6.bias',
    }.items():
        assert torch.equal(model.state_dict()[ours], source[theirs]), ours


@pytest.mark.parametrize('name', zoo_names())
def test_there_and_back_is_the_identity(name, convert):
    source = weights_of(name)
    key = list(source)[-1]
    source[key] = source[key].half()
    converted, printed = convert(source)
    assert f'{name}, {load_zoo(name).params():,} parameters' in printed
    assert converted['meta']['network'] == name
    assert_same(
        converted['state_dict'],
        dict(zip((slot.ours for slot in slots(load_zoo(name))), source.values(), strict=True)),
    )
    back, printed = convert(converted, '--reverse')
    assert_same(back['state_dict'], source)
    assert 'assumed' not in printed


def test_names_that_only_nvidias_file_tells_come_back(convert):
    source = weights_of('gpunet_d1')
    renamed = OrderedDict((key.replace('net.8', 'net.9'), v) for key, v in source.items())
    assert list(renamed) != list(source)
    converted, _ = convert(renamed)
    assert_same(convert(converted, '--reverse')[0]['state_dict'], renamed)
    # Without the record of them, as after training, they can only be assumed.
    back, printed = convert(dict(state_dict=converted['state_dict']), '--reverse')
    assert_same(back['state_dict'], source)
    assert 'the names in the head and the tail of gpunet_d1 are assumed, not known' in printed


def test_every_way_to_hold_the_weights(convert):
    plain, average = weights_of('gpunet_0'), weights_of('gpunet_0', start=1000)
    parallel = {f'module.{key}': value for key, value in average.items()}

    def converted(content, *args):
        found, printed = convert(content, *args)
        first = found['state_dict']['backbone.stem.0.conv.conv.weight'].flatten()[0].item()
        return first, printed.splitlines()[0].rpartition('from ')[2]

    assert converted(average) == (1000, 'its tensors')
    assert converted(parallel) == (1000, 'its tensors')
    assert converted(dict(state_dict=parallel)) == (1000, 'state_dict')
    both = dict(state_dict=plain, state_dict_ema=parallel)
    assert converted(both) == (1000, 'state_dict_ema')
    assert converted(both, '--entry', 'state_dict') == (0, 'state_dict')


def test_a_checkpoint_as_timm_saves_it(convert):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.RMSprop([parameter], momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    content = dict(
        epoch=449,
        arch='gpunet',
        state_dict=weights_of('gpunet_0'),
        state_dict_ema=weights_of('gpunet_0', start=1000),
        optimizer=optimizer.state_dict(),
        args=argparse.Namespace(
            lr=0.08, opt_betas=None, device='cuda:0', mean=(0.5, np.float64(1))
        ),
        amp_scaler=dict(scale=65536.0, _growth_tracker=3),
        version=2,
        metric=np.float64(80.3),
    )
    converted, printed = convert(content)
    assert 'from state_dict_ema' in printed
    assert set(converted) == {'state_dict', 'meta'}


def test_safetensors_there_and_back(convert, tmp_path, tool):
    source = weights_of('gpunet_0')
    converted, _ = convert(source, dst='dst.safetensors')
    assert converted.keys() == {slot.ours for slot in slots(load_zoo('gpunet_0'))}
    # The format sorts by name, so the order has to be found again.
    assert list(converted) != [slot.ours for slot in slots(load_zoo('gpunet_0'))]
    code, _, err = tool(
        CONVERTER, tmp_path / 'dst.safetensors', tmp_path / 'new/back.pth', '--reverse'
    )
    assert code == 0, err
    assert_same(load_checkpoint_file(tmp_path / 'new/back.pth')['state_dict'], source)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize('where', ['args', 'state_dict', 'in args'])
def test_code_in_a_checkpoint_is_refused_and_not_run(refused, tmp_path_factory, where):
    marker = tmp_path_factory.mktemp('elsewhere') / 'marker'
    content = dict(state_dict=weights_of('gpunet_0'))
    evil = Evil(marker)
    content |= {'in args': dict(args=argparse.Namespace(hook=evil))}.get(where, {where: evil})
    assert 'refused, because it asks for the Python object' in refused(content)
    assert not marker.exists()


def test_files_that_hold_no_network_of_nvidias(refused):
    assert refused(None) == 'there is no such checkpoint'
    assert 'cannot be read as plain data' in refused(b'<html>Not found</html>')
    assert 'holds no weights' in refused(dict(epoch=3))
    assert 'holds no weights' in refused(dict(state_dict={}))
    assert 'holds no weights' in refused(dict(state_dict=dict(weight=1.0)))
    from torchvision.models import resnet18

    with torch.device('meta'):
        shapes = {key: value.shape for key, value in resnet18().state_dict().items()}
    resnet = {key: torch.tensor(0.0).expand(shape) for key, shape in shapes.items()}
    assert "it has 'conv1.weight' of shape [64, 3, 7, 7] in place of" in refused(resnet)


def test_networks_that_are_nearly_nvidias(refused):
    source = weights_of('gpunet_1')
    key = 'network.stage: 6 layer14.se.conv_reduce.weight'
    wrong = source | {key: torch.zeros(448, 1792, 1, 1)}
    assert refused(dict(state_dict=wrong)).endswith(
        f'the nearest is gpunet_1, but {key!r} has shape [448, 1792, 1, 1] instead of '
        '[112, 1792, 1, 1]'
    )
    del source[key]
    assert refused(source).endswith(f'{key!r} of shape [112, 1792, 1, 1] is missing')


def test_the_wrong_direction_and_entries_that_are_not_there(refused, convert, tmp_path):
    source = weights_of('gpunet_0')
    assert "is in NVIDIA's layout: without --reverse it is converted" in refused(
        source, '--reverse'
    )
    assert 'has no state_dict_ema, but state_dict' in refused(
        dict(state_dict=source), '--entry', 'state_dict_ema'
    )
    ours = {slot.ours: source[slot.nvidia] for slot in slots(load_zoo('gpunet_0'))}
    assert "is in our layout: --reverse converts it into NVIDIA's" in refused(ours)


def test_destinations_that_cannot_be(tool, tmp_path):
    src = tmp_path / 'src.pth'
    torch.save(weights_of('gpunet_0'), src)
    content = src.read_bytes()
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'link').symlink_to(src)
    for dst, words in {
        src: 'is SRC and DST at once',
        tmp_path / 'link': 'is SRC and DST at once',
        tmp_path / 'folder': 'cannot write',
        src / 'below.pth': 'cannot make the folder of',
        src / 'below.safetensors': 'cannot make the folder of',
    }.items():
        code, _, err = tool(CONVERTER, src, dst)
        assert code == 2
        assert words in err and str(dst) in err and err.count('\n') == 1
        assert src.read_bytes() == content


def test_help_and_a_sentence_in_a_process_of_its_own(run_python):
    script = f'tools/{CONVERTER}.py'
    done = run_python(script, '--help')
    assert done.returncode == 0
    assert '--reverse' in done.stdout
    done = run_python(script, 'nowhere.pth', 'dst.pth')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'error: nowhere.pth: there is no such checkpoint\n'
