import json
import os

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from prunet_mm.deploy.network import build_network
from prunet_mm.engine.cli import load_config
from prunet_mm.spec import NetworkSpec, load_zoo

DIGITS = 'configs/cls/prunet_digits.py'
GPUNET_1 = 'configs/cls/gpunet-1_8xb256_in1k.py'
DETECTOR = 'configs/det/retinanet_prunet_coco.py'


@pytest.fixture
def trained(root, tmp_path):
    """Weights of a config's network as if trained: its module, and the checkpoint."""

    def trained(config, part):
        torch.manual_seed(0)
        module = build_network(load_config(root / config), part).module
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for value in (norm.weight.data, norm.running_var):
                    value.uniform_(0.5, 1.5)
                for value in (norm.bias.data, norm.running_mean):
                    value.uniform_(-0.5, 0.5)
        path = tmp_path / 'trained.pth'
        others = {'bbox_head.weight': torch.ones(1)} if part == 'backbone' else {}
        torch.save(dict(state_dict=module.state_dict() | others, meta=dict(epoch=1)), path)
        return module, path

    return trained


@pytest.fixture
def exported(tool, tmp_path):
    def exported(config, *args, name='network.onnx'):
        code, out, err = tool('export', config, *args, '--out', tmp_path / name)
        assert (code, err) == (0, ''), (out, err)
        return tmp_path / name, out

    return exported


def deviation(found, wanted):
    return max(
        ((torch.as_tensor(a) - b).abs().max() / b.abs().max()).item()
        for a, b in zip(found, wanted, strict=True)
    )


def deviates(path, module, shape):
    """Runs an ONNX file and a module on the same images."""
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    x = torch.randn(shape)
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    return deviation(session.run(None, {'input': x.numpy()}), wanted)


def test_onnx_of_a_detector_s_backbone(exported, trained, root):
    module, checkpoint = trained(DETECTOR, 'backbone')
    path, out = exported(DETECTOR, checkpoint, '--part', 'backbone', '--input-size', 128, 64)
    for batch in (1, 2, 5):
        assert deviates(path, module, (batch, 3, 128, 64)) < 1e-4

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == dict(
        input=['batch', 3, 128, 64],
        stage3=['batch', 96, 16, 8],
        stage4=['batch', 256, 8, 4],
        stage5=['batch', 704, 4, 2],
        stage6=['batch', 704, 2, 1],
    )
    assert {node.op_type for node in model.graph.node} == {'Conv', 'Relu', 'Add'}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert model.producer_name == 'prunet_mm'
    assert metadata['network'] == model.graph.name == 'prunet_p0'
    assert metadata['weights'] == 'trained.pth'
    assert NetworkSpec.from_dict(json.loads(metadata['spec'])) == load_zoo('prunet_p0')
    assert json.loads(metadata['preprocessing'])['mean'] == [123.675, 116.28, 103.53]
    assert str(root).encode() not in path.read_bytes()
    assert 'output   stage6: (batch, 704, 2, 1)' in out


def test_onnx_of_a_classifier_with_se_swish_and_padding_0(exported, trained):
    module, checkpoint = trained(GPUNET_1, 'model')
    path, out = exported(GPUNET_1, checkpoint, '--input-size', 64)
    for batch in (1, 4):
        assert deviates(path, module, (batch, 3, 64, 64)) < 1e-4
    assert 'output   logits: (batch, 1000), in front of the softmax' in out
    assert 'checked  in ONNX Runtime against PyTorch' in out
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    preparation = json.loads(metadata['preprocessing'])
    # a crop as large in proportion as in the config
    assert preparation['resizing']['mode'] == 'edge'
    assert preparation['size'] == [64, 64] and preparation['channels'] == 'rgb'
    assert f'wrote    {path}' in out


def test_torchscript(exported, trained):
    module, checkpoint = trained(DIGITS, 'model')
    path, _ = exported(DIGITS, checkpoint, '--format', 'torchscript', name='network.pt')
    files = {'prunet_mm.json': ''}
    loaded = torch.jit.load(path, _extra_files=files)
    for batch in (1, 4):
        x = torch.randn(batch, 1, 8, 8)
        with torch.no_grad():
            assert deviation([loaded(x)], [module(x)]) < 1e-4
    metadata = json.loads(files['prunet_mm.json'])
    assert metadata['outputs'] == ['logits']
    assert metadata['network'] == 'prunet_digits'


def test_random_weights_are_called_so_and_the_file_goes_to_the_work_dir(tool, tmp_path):
    code, out, err = tool(
        'export',
        DIGITS,
        *('--part', 'backbone', '--format', 'torchscript'),
        *('--cfg-options', f'work_dir={tmp_path}', 'model.backbone.out_indices=[1,2]'),
    )
    assert (code, err) == (0, '')
    assert 'weights  random, since no CHECKPOINT was given' in out
    assert 'output   stage1: ' in out and 'output   stage2: ' in out
    assert [path.name for path in tmp_path.iterdir()] == ['prunet_digits_backbone.pt']


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['nowhere.pth'], 'nowhere.pth: there is no such checkpoint'),
        (['--input-size', 1], 'images of 1 pixels: layers[0].stride'),
        (['--opset', 12], '--opset 12: files are written with opset 17 to 23 only'),
        (['--output', 'raw'], '--output is for whole detectors, but this exports the classifier'),
        (['--format', 'torchscript'], 'the file is written as .pt, so name it so'),
        (['--cfg-options', 'model.backbone.arch=prunet_p9'], 'no network "prunet_p9" in the zoo'),
    ],
)
def test_bad_input_is_one_sentence(refused, tmp_path, args, words):
    out = tmp_path / 'network.onnx'
    assert words in refused(*args, '--out', out, name='export', config=DIGITS)
    assert not out.exists()


def test_the_checkpoint_of_another_network_is_one_sentence(refused, trained, tmp_path):
    _, checkpoint = trained(DIGITS, 'model')
    out = tmp_path / 'network.onnx'
    sentence = refused(checkpoint, '--out', out, name='export', config=GPUNET_1)
    assert sentence.startswith(f'{checkpoint}: these weights do not fit the network')
    assert 'gpunet_1' in sentence
    assert not out.exists()


@pytest.mark.skipif(os.name != 'posix', reason='/dev/null is a file that is no folder')
def test_a_folder_that_cannot_be_is_told_before_anything_is_built(refused, monkeypatch):
    monkeypatch.setattr('prunet_mm.deploy.network.build_network', None)
    sentence = refused('--out', '/dev/null/network.onnx', name='export', config=DIGITS)
    assert sentence.startswith('cannot make the folder of /dev/null/network.onnx')


def test_a_config_that_is_missing(refused):
    sentence = refused(name='export', config='configs/cls/prunet_digit.py')
    assert sentence.startswith('configs/cls/prunet_digit.py: there is no such config file; near')


def test_three_sizes_are_one_too_many(tool):
    code, _, err = tool('export', DIGITS, '--input-size', 8, 8, 8)
    assert code == 2
    assert 'one number or two' in err
