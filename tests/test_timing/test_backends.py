import functools
import time

import pytest
import torch
from torch import nn

from prunet_mm.errors import ConfigError
from prunet_mm.timing.agreement import check
from prunet_mm.timing.backends import BACKENDS, base, find_backend
from prunet_mm.timing.settings import DTYPES

HERE = ['eager', 'channels-last', 'torchscript', 'onnxruntime']
X = [torch.randn(2, 3, 8, 8) for _ in range(2)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(*layers).eval()


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


def test_threads_of_onnxruntime_do_not_spin_on_the_cores_of_the_next_target():
    model, x = nn.Conv2d(64, 64, 3).eval(), torch.randn(2, 64, 32, 32)
    call = BACKENDS['onnxruntime'](threads=2).prepare(model, [x], torch.float32)
    worked = []
    for _ in range(20):
        call(x)
        before = time.process_time()
        time.sleep(0.002)
        worked.append(time.process_time() - before)
    assert sorted(worked)[10] < 0.0005  # of these 2 ms; spinning threads work all the time


@pytest.mark.parametrize(
    ('name', 'device', 'dtype', 'sentence'),
    [
        ('openvino', 'cuda', 'float32', 'backend openvino runs on cpu, not on cuda'),
        ('cuda-graph', 'cpu', 'float32', 'backend cuda-graph runs on cuda, not on cpu'),
        ('onnxruntime', 'cpu', 'bfloat16', 'computes in float32 or float16: no bfloat16'),
        ('openvino', 'cpu', 'float32', 'needs openvino, which is not installed: pip install op'),
        ('onnxruntime', 'cpu', 'float32', 'needs onnxruntime, which is not installed: pip install'),
        ('tensorrt', 'cuda:1', 'float16', 'needs tensorrt, which is not installed: pip install'),
    ],
)
def test_what_is_not_here_is_refused_in_one_sentence(monkeypatch, name, device, dtype, sentence):
    monkeypatch.setattr(base, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=sentence):
        find_backend(name).require(device, dtype)


def test_onnxruntime_without_cuda_is_refused_on_it():
    with pytest.raises(ConfigError, match='pip install onnxruntime-gpu'):
        find_backend('onnxruntime').require('cuda')


def test_compiling_takes_a_compiler(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler -O2')
    with pytest.raises(ConfigError, match='there is no no-such-compiler: install one'):
        find_backend('compile').require('cpu')


def test_every_name_is_that_of_its_class():
    assert {name: backend.name for name, backend in BACKENDS.items()} == {n: n for n in BACKENDS}
