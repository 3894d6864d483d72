import importlib.util
import itertools
import json
import runpy

import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.latency import LatencyTable
from prunet_mm.spec import load_zoo


@pytest.fixture(scope='module')
def macro(root):
    spec = importlib.util.spec_from_file_location('m', root / 'benchmarks/macro_space.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def costs(root):
    """Parameters and FLOPs by code, as published."""
    data = json.loads((root / 'tests/data/nas_bench_macro/costs.json').read_text())
    return data['networks']


def test_parameters_and_flops_are_the_published_ones(macro, costs):
    assert len(costs) >= 200
    for code, (params, flops) in costs.items():
        spec = macro.to_spec(code)
        assert (code, spec.params(), spec.macs()) == (code, params, flops)


def test_a_code_comes_back_with_the_identities_last_in_each_stage(macro, costs):
    for code in costs:
        back = macro.to_code(macro.to_spec(code))
        assert back == macro.canonical(code) == macro.canonical(back)
        assert macro.to_spec(back).layers == macro.to_spec(code).layers


def test_only_the_identitys_place_does_not_count(macro):
    layers = {code: macro.to_spec(code).layers for code in ('22102201', '22120210', '22210210')}
    assert layers['22102201'] == layers['22120210'] != layers['22210210']
    assert macro.canonical('22102201') == '22120210'


def test_the_space_holds_each_network_once(macro):
    space = macro.space()
    assert space.size() == 3969
    assert space.smallest().layers == macro.to_spec('00000000').layers
    assert space.largest().layers == macro.to_spec('22222222').layers


@pytest.mark.parametrize('code', ['', '1111111', '111111111', '11111113', 'x1111111'])
def test_what_is_no_code_is_refused(macro, code):
    with pytest.raises(ConfigError, match=f'found the code "{code}", expected 8 digits'):
        macro.to_spec(code)


def test_a_network_of_another_space_has_no_code(macro):
    with pytest.raises(ConfigError, match='prunet_p0 is not in nas_bench_macro: resolution'):
        macro.to_code(load_zoo('prunet_p0'))


def test_accuracies_are_by_canonical_code(macro, tmp_path):
    codes = map(''.join, itertools.product('012', repeat=8))
    path = tmp_path / 'macro.json'
    path.write_text(json.dumps({code: dict(mean_acc=code.count('1')) for code in codes}))
    accuracies = macro.truth(path)
    assert len(accuracies) == 3969
    assert accuracies['01210210'] == 3
    assert '01201210' not in accuracies


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        (None, 'cannot read the benchmark .*: No such file'),
        ('{', 'not the JSON file of NAS-Bench-Macro'),
        ('[]', 'not the JSON file of NAS-Bench-Macro'),
        ('{"110": {"mean_acc": 1}}', 'not the JSON file of NAS-Bench-Macro'),
        ('{"11111111": {"mean_acc": 1}}', '3968 networks too few'),
    ],
)
def test_what_is_not_the_benchmarks_file_is_refused(macro, tmp_path, text, why):
    path = tmp_path / 'macro.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        macro.truth(path)


def test_a_millisecond_of_its_table_is_a_million_macs(macro, root, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(root / 'benchmarks')
    table = LatencyTable.load(
        runpy.run_path(str(root / 'benchmarks/nas_bench_macro.py'))['flops_table'](tmp_path)
    )
    for code in ('00000000', '20100200', '22222222'):
        spec = macro.to_spec(code)
        assert table.predict_ms(spec) == pytest.approx(spec.macs() / 1e6)
