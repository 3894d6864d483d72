"""Whole detectors as ONNX files, on scenes of digits."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from prunet_mm.deploy.detector import model_of
from prunet_mm.deploy.suppression import PLUGIN
from prunet_mm.engine.cli import load_config

RETINANET = 'configs/det/retinanet_prunet_digits.py'
EFFICIENTDET = 'configs/det/efficientdet_prunet_digits.py'


@pytest.fixture
def weights(root, tmp_path, spread_scores):
    """Weights of a config's detector that find boxes of many scores."""

    def weights(config):
        torch.manual_seed(0)
        detector = model_of(load_config(root / config))
        detector.init_weights()
        spread_scores(detector)
        torch.save(dict(state_dict=detector.state_dict()), tmp_path / 'weights.pth')
        return tmp_path / 'weights.pth'

    return weights


@pytest.fixture
def exported(tool, weights, of_scenes, tmp_path):
    def exported(config, *args, name='detector.onnx'):
        args = (weights(config), *args, '--out', tmp_path / name, *of_scenes)
        code, out, err = tool('export', config, *args)
        assert (code, err) == (0, ''), (out, err)
        return tmp_path / name, out

    return exported


def about(model):
    return {entry.key: entry.value for entry in model.metadata_props}


def shapes(values):
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }


def run(data, batch=2):
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    (images,) = session.get_inputs()
    kind = np.float16 if 'float16' in images.type else np.float32
    x = np.random.RandomState(0).randn(batch, *images.shape[1:]).astype(kind)
    return dict(
        zip(
            [y.name for y in session.get_outputs()],
            session.run(None, {images.name: x}),
            strict=True,
        )
    )


@pytest.mark.parametrize('config', [RETINANET, EFFICIENTDET])
def test_detections(exported, config):
    path, out = exported(config)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert shapes(model.graph.input) == dict(input=['batch', 3, 128, 128])
    assert shapes(model.graph.output) == dict(
        count=['batch'], boxes=['batch', 50, 4], scores=['batch', 50], labels=['batch', 50]
    )
    assert "checked  in ONNX Runtime against mmdet's predict on 2 images" in out
    assert 'the same 100 boxes' in out
    metadata = about(model)
    assert json.loads(metadata['classes']) == list('0123456789')
    assert json.loads(metadata['preprocessing'])['size'] == [128, 128]
    assert json.loads(metadata['postprocessing'])['iou_threshold'] == 0.5
    for batch in (1, 3):
        found = run(path, batch)
        for index, count in enumerate(found['count']):
            assert (np.diff(found['scores'][index]) <= 0).all()
            assert (found['scores'][index][:count] > 0.05).all()
            assert (found['labels'][index][count:] == -1).all()
            assert not found['boxes'][index][count:].any()


def test_old_runtimes_and_tensorrt_find_what_they_ask_for_and_half_precision_is_finite(exported):
    """Old ones refuse newer files; TensorRT wants axes and sizes of reductions as weights."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(exported(EFFICIENTDET)[0])
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [('', 18)]
    constants = {tensor.name for tensor in model.graph.initializer}
    axes = 'ReduceMax', 'ReduceSum', 'ReduceMean', 'Unsqueeze', 'Squeeze', 'TopK'
    nodes = [node for node in model.graph.node if node.op_type in axes]
    assert nodes and all(node.input[1] in constants for node in nodes)
    assert 'Constant' not in {node.op_type for node in model.graph.node}

    half = convert_float_to_float16(model).SerializeToString()
    found = run(half)
    assert found['count'].min() > 0
    assert all(np.isfinite(values).all() for values in found.values())
    assert found['boxes'].max() <= 128


def test_raw(exported):
    path, out = exported(RETINANET, '--output', 'raw')
    # 9 anchors in each cell of 16 x 16, 8 x 8 and 4 x 4 maps
    assert shapes(onnx.load(path).graph.output) == dict(
        scores=['batch', 3024, 10], boxes=['batch', 3024, 4]
    )
    assert 'scores and boxes of all anchors: largest error' in out
    assert 'the same 100 boxes' in out


def test_raw_as_torchscript(exported):
    path, _ = exported(RETINANET, '--format', 'torchscript', name='detector.pt')
    scores, boxes = torch.jit.load(path)(torch.randn(3, 3, 128, 128))
    assert scores.shape == (3, 3024, 10) and boxes.shape == (3, 3024, 4)


def test_the_plugin_of_tensorrt(exported):
    """Its structure, and that it gets what it asks for; TensorRT itself was not at hand."""
    path, out = exported(RETINANET, '--nms', 'tensorrt')
    model = onnx.load(path)
    (plugin,) = (node for node in model.graph.node if node.op_type == PLUGIN)
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in plugin.attribute}
    assert settings == dict(
        plugin_version=b'1',
        background_class=-1,
        score_activation=0,
        box_coding=0,
        class_agnostic=0,
        max_output_boxes=50,
        score_threshold=pytest.approx(0.05),
        iou_threshold=pytest.approx(0.5),
    )
    assert plugin.output[1:] == ['boxes', 'scores', 'labels']
    assert shapes(model.graph.output)['boxes'] == ['batch', 50, 4]
    assert 'checked  in ONNX Runtime (without the plugin)' in out
    assert 'the same 100 boxes' in out


def test_a_larger_input_is_padded(exported):
    path, _ = exported(RETINANET, '--input-size', 160, 192)
    preparation = json.loads(about(onnx.load(path))['preprocessing'])
    assert preparation['size'] == [160, 192]
    assert preparation['resizing'] == dict(
        mode='fit', scale=[128, 128], interpolation='bilinear', backend='cv2'
    )


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--format', 'torchscript', '--output', 'detections'], 'has no operator that selects'),
        (['--images', 'nowhere.jpg'], 'nowhere.jpg: there is no such image, folder or video'),
        (['--cfg-options', 'data_root=nowhere'], 'name some with --images'),
        (
            ['--cfg-options', 'model.test_cfg.nms.type=soft_nms'],
            'model.test_cfg.nms is not as RetinaNet has it',
        ),
        (['--opset', 5], '--opset 5: files are written with opset 17 to 23 only'),
    ],
)
def test_bad_input_is_one_sentence(refused, of_scenes, tmp_path, args, words):
    suffix = '.pt' if 'torchscript' in args else '.onnx'
    if '--cfg-options' in args:
        key, _, value = args[1].partition('=')
        options = [x for x in of_scenes if not x.startswith(f'test_dataloader.dataset.{key}')]
        args = [*options, f'test_dataloader.dataset.{args[1]}' if key == 'data_root' else args[1]]
    else:
        args = [*args, *of_scenes]
    out = tmp_path / f'detector{suffix}'
    assert words in refused(*args, '--out', out, name='export', config=RETINANET)
    assert not out.exists()
