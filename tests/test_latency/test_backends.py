import functools
import math
import os
import sys
import textwrap

import pytest
import torch
from torch import nn

from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.latency.agreement import check
from prunet_mm.latency.backends import BACKENDS, base, require
from prunet_mm.latency.backends.onnx_model import OnnxFile
from prunet_mm.latency.cli import DTYPES

HERE = ['eager', 'channels-last', 'torchscript', 'onnxruntime']
X = [torch.randn(2, 3, 8, 8) for _ in range(2)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def onnx_file(model, tmp_path):
    """Write the model for these batches (None for any) and images (None for any)."""

    def write(batch=None, size=None):
        path = tmp_path / 'model.onnx'
        free = {
            axis: f'axis{axis}' for axis, side in {0: batch, 2: size, 3: size}.items() if not side
        }
        x = torch.randn(batch or 2, 3, size or 8, size or 8)
        torch.onnx.export(
            model, (x,), path, dynamo=False, input_names=['x'], dynamic_axes=dict(x=free)
        )
        return path

    return write


def outputs(name, model, dtype='float32', device='cpu'):
    backend, dtype = BACKENDS[name](device), getattr(torch, dtype)
    inputs = [backend.convert(x, dtype) for x in X]
    with torch.inference_mode():
        return backend.prepare(model, inputs, dtype)(inputs[1])


@pytest.mark.parametrize(
    ('name', 'dtype'),
    [(name, dtype) for name in HERE for dtype in DTYPES if dtype in BACKENDS[name].dtypes],
)
def test_every_backend_computes_what_the_model_computes(model, name, dtype):
    with torch.no_grad():
        expected = model(X[1])
    found = outputs(name, model, dtype)
    check(found, expected, dtype)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_each_of_many_models_of_a_class_is_compiled(monkeypatch):
    """Torch compiles one piece of code eight times, and runs it as it is from then on."""
    torch.compiler.reset()
    # What Dynamo captures is run as it is, since C++ takes long to compile.
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend='eager'))
    models = [nn.Sequential(nn.Conv2d(3, width, 1)).eval() for width in range(1, 13)]
    for each in models:
        check(outputs('compile', each), outputs('eager', each), 'float32')
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == len(models)


def test_channels_lie_next_to_each_other(model):
    x = BACKENDS['channels-last']().convert(X[0], torch.float32)
    call = BACKENDS['channels-last']().prepare(model, [x], torch.float32)
    for tensor in (x, call[0].weight, call[0](x)):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_several_outputs_stay_several():
    class Two(nn.Module):
        def forward(self, x):
            return x + 1, x * 2

    for name in HERE:
        check(outputs(name, Two().eval()), (X[1] + 1, X[1] * 2), 'float32')


def test_a_chain_hands_on_what_the_next_one_takes(model):
    first = nn.Conv2d(3, 3, 1).eval()
    with torch.no_grad():
        expected = model(first(X[1]))
    for name in HERE:
        backend = BACKENDS[name]()
        x = backend.convert(X[1], torch.float32)
        calls = [backend.prepare(each, [x], torch.float32) for each in (first, model)]
        with torch.inference_mode():
            check(calls[1](calls[0](x)), expected, 'float32')


@pytest.mark.parametrize(('batch', 'size'), [(2, 8), (None, 8), (None, None)])
def test_an_onnx_file_is_run_as_it_is(model, onnx_file, batch, size):
    file = OnnxFile.load(str(onnx_file(batch, size)))
    assert file.shape((8, 8)) == (3, 8, 8)
    assert file.params() == sum(weight.numel() for weight in model.parameters())
    assert file.macs((3, 8, 8)) == 3 * 9 * 8 * 36 + 8 * 5
    check(outputs('onnxruntime', file), outputs('eager', model), 'float32')


def test_an_onnx_file_of_another_shape_says_which(onnx_file):
    file = OnnxFile.load(str(onnx_file(1, 8)))
    with pytest.raises(ConfigError, match='takes inputs of 1 x 3 x 8 x 8, not 2 x 3 x 8 x 8'):
        outputs('onnxruntime', file)
    with pytest.raises(ConfigError, match='takes images of 8 x 8 px only'):
        file.shape((9, 9))
    with pytest.raises(ConfigError, match='does not say how large images are: say --input-size'):
        OnnxFile.load(str(onnx_file())).shape()


def test_an_onnx_file_keeps_its_type(onnx_file):
    with pytest.raises(ConfigError, match='in the type that it was saved in: leave --dtype out'):
        outputs('onnxruntime', OnnxFile.load(str(onnx_file(2, 8))), 'float16')


def test_what_is_no_onnx_model_is_one_sentence(onnx_file):
    path = onnx_file()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ConfigError, match='is cut off or no ONNX model'):
        OnnxFile.load(str(path))


@pytest.mark.parametrize(
    ('name', 'device', 'dtype', 'sentence'),
    [
        ('openvino', 'cuda', 'float32', 'backend openvino runs on cpu, not on cuda'),
        ('cuda-graph', 'cpu', 'float32', 'backend cuda-graph runs on cuda, not on cpu'),
        ('onnxruntime', 'cpu', 'bfloat16', 'computes in float32 or float16: no bfloat16'),
        ('openvino', 'cpu', 'float32', 'needs openvino, which is not installed: pip install op'),
        ('onnxruntime', 'cpu', 'float32', 'needs onnxruntime, which is not installed: pip install'),
        ('tensorrt', 'cuda:1', 'float16', 'needs onnx, which is not installed: pip install onnx'),
    ],
)
def test_what_is_not_here_is_refused_in_one_sentence(monkeypatch, name, device, dtype, sentence):
    monkeypatch.setattr(base, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=sentence):
        require([name], device, dtype)


def test_onnxruntime_without_cuda_is_refused_on_it():
    with pytest.raises(ConfigError, match='pip install onnxruntime-gpu'):
        require(['onnxruntime'], 'cuda')


def test_compiling_takes_a_compiler(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler -O2')
    with pytest.raises(ConfigError, match='there is no no-such-compiler: install one'):
        require(['compile'], 'cpu')


def test_every_name_is_that_of_its_class():
    assert {name: backend.name for name, backend in BACKENDS.items()} == {n: n for n in BACKENDS}


FAKE = '''\
    #!{python}
    """Does what trtexec does with these arguments, by ONNX Runtime."""
    import json, sys
    from pathlib import Path

    args = dict(arg.removeprefix('--').partition('=')[::2] for arg in sys.argv[1:])
    log = Path({log!r})
    log.write_text(log.read_text() + ' '.join(sys.argv[1:]) + '\\n' if log.exists() else '')
    if {fails!r} in args:
        print('&&&& RUNNING TensorRT.trtexec [TensorRT v100400]')
        sys.exit('&&&& FAILED it went wrong')
    if 'help' in args:
        print('&&&& RUNNING TensorRT.trtexec [TensorRT v100400] # trtexec --help')
    if 'saveEngine' in args:
        Path(args['saveEngine']).write_bytes(Path(args['onnx']).read_bytes())
    if 'exportOutput' in args:
        import numpy, onnxruntime
        session = onnxruntime.InferenceSession(args['loadEngine'])
        name, _, file = args['loadInputs'].partition(':')
        (known,) = session.get_inputs()
        assert known.name == name
        x = numpy.fromfile(file, numpy.float32).reshape(known.shape)
        text = json.dumps([
            dict(name='y', dimensions='x'.join(map(str, y.shape)), values=y.ravel().tolist())
            for y in session.run(None, {{name: x}})
        ])
        Path(args['exportOutput']).write_text(text.replace('NaN', '-nan'))
    if 'exportTimes' in args:
        times = [dict(startComputeMs=ms, computeMs=ms, latencyMs=9.0) for ms in (1.5, 2.5, 2.0)]
        Path(args['exportTimes']).write_text(json.dumps(times))
'''


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """Put a program of that name on PATH; returns the arguments that it was called with."""

    def install(fails=''):
        path, log = tmp_path / 'bin/trtexec', tmp_path / 'log'
        path.parent.mkdir()
        log.write_text('')
        text = FAKE.format(python=sys.executable, log=str(log), fails=fails)
        path.write_text(textwrap.dedent(text))
        path.chmod(0o755)
        monkeypatch.setenv('PATH', str(path.parent), prepend=os.pathsep)
        return lambda: log.read_text().splitlines()

    return install


def test_trtexec_builds_once_computes_and_times(model, trtexec):
    calls, dtype = trtexec(), torch.float32
    require(['tensorrt'], 'cuda')
    backend = BACKENDS['tensorrt']('cuda:1')
    inputs = [backend.convert(x, dtype) for x in X]
    call = backend.prepare(model, inputs, dtype)
    assert call.samples_ms(inputs[0]) == [1.5, 2.5, 2.0]
    check(call(inputs[1]), model(X[1]).detach(), 'float32')
    build, times, compute = calls()
    assert '--saveEngine=engine --skipInference' in build and '--fp16' not in build
    assert '--useCudaGraph --noDataTransfers' in times and '--exportTimes=' in times
    assert all(line.endswith('--device=1') for line in (build, times, compute))
    assert backend.versions()['trtexec'] == '100400'


def test_half_precision_is_a_flag_of_trtexec(model, trtexec):
    calls = trtexec()
    backend = BACKENDS['tensorrt']('cuda')
    backend.prepare(model, [backend.convert(X[0], torch.float16)], torch.float16)
    assert '--fp16 --inputIOFormats=fp16:chw --outputIOFormats=fp16:chw' in calls()[0]


def test_nan_in_what_trtexec_computes_is_seen(model, trtexec):
    trtexec()
    nn.init.constant_(model[-1].bias, math.nan)
    with pytest.raises(PrunetError, match='has NaN'):
        check(outputs('tensorrt', model, device='cuda'), torch.zeros(2, 5), 'float32')


@pytest.mark.parametrize('step', ['saveEngine', 'exportOutput'])
def test_what_trtexec_says_when_it_fails_is_handed_on(model, trtexec, step):
    trtexec(fails=step)
    with pytest.raises(PrunetError, match='trtexec ended with code 1: &&&& FAILED it went wrong'):
        outputs('tensorrt', model, device='cuda')


def test_without_tensorrt_both_ways_to_have_it_are_named(monkeypatch):
    monkeypatch.setenv('PATH', '')
    with pytest.raises(ConfigError, match='no trtexec on PATH either: pip install tensorrt'):
        require(['tensorrt'], 'cuda')
