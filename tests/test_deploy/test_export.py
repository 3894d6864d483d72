import pytest
import torch

from prunet_mm.deploy import formats
from prunet_mm.deploy.export import export
from prunet_mm.deploy.network import build_network
from prunet_mm.engine.cli import load_config
from prunet_mm.errors import ConfigError, PrunetError


@pytest.fixture
def network(root):
    return build_network(load_config(root / 'configs/cls/prunet_digits.py'), 'model')


@pytest.fixture
def faulty(monkeypatch):
    """Let what is read back from a TorchScript file compute something else."""

    def break_by(change):
        true = formats.FORMATS['torchscript']

        (runtime,) = true.runtimes

        def load(data):
            call = runtime.load(data)
            return lambda x: [change(y) for y in call(x)]

        changed = true._replace(runtimes=(runtime._replace(load=load),))
        monkeypatch.setitem(formats.FORMATS, 'torchscript', changed)

    return break_by


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda y: y * (1 + 2e-4), "'logits' is off by 2.0e-04 of the largest value at batch 1"),
        (lambda y: y * float('nan'), 'is off by nan'),
        (lambda y: y[:1], r'at batch 3 the outputs have shapes \[\(1, 10\)\]'),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(
    network, faulty, tmp_path, change, words
):
    path = tmp_path / 'network.pt'
    path.write_text('the one of yesterday')
    faulty(change)
    with pytest.raises(PrunetError, match=words):
        export(network, 'torchscript', path)
    assert path.read_text() == 'the one of yesterday'
    assert list(tmp_path.iterdir()) == [path]


def test_rounding_is_accepted_and_told(network, faulty, tmp_path):
    faulty(lambda y: y * (1 + 5e-5))
    found = export(network, 'torchscript', tmp_path / 'network.pt')
    assert [(one.output, one.shape, one.batch) for one in found] == [
        ('logits', (10,), 1),
        ('logits', (10,), 3),
    ]
    assert [one.error for one in found] == pytest.approx([5e-5, 5e-5], rel=0.1)


def test_the_network_itself_keeps_its_norms(network, tmp_path):
    before = [type(module) for module in network.module.modules()]
    assert torch.nn.BatchNorm2d in before
    export(network, 'torchscript', tmp_path / 'network.pt')
    assert [type(module) for module in network.module.modules()] == before


def test_every_runtime_that_is_installed_checks_the_file(network, monkeypatch, tmp_path):
    true = formats.FORMATS['torchscript']
    (runtime,) = true.runtimes
    others = (
        runtime._replace(name='another', package='torch'),
        runtime._replace(name='absent', package='no_such_package', load=None),
    )
    changed = true._replace(runtimes=(runtime, *others))
    monkeypatch.setitem(formats.FORMATS, 'torchscript', changed)
    found = export(network, 'torchscript', tmp_path / 'network.pt')
    assert [one.runtime for one in found] == ['TorchScript'] * 2 + ['another'] * 2


def test_an_opset_that_is_not_written_is_one_sentence():
    assert formats.require_opset(17) == 17
    for opset in (12, 99):
        with pytest.raises(ConfigError, match=f'--opset {opset}: .* opset 17 to 23 only'):
            formats.require_opset(opset)


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(formats, 'find_spec', lambda name: name == 'onnx' or None)
    with pytest.raises(ConfigError, match='pip install onnxscript onnxruntime$'):
        formats.FORMATS['onnx'].require()
    formats.FORMATS['torchscript'].require()
