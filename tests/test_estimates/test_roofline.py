"""The latency model of GPUs that are not at hand: what it adds up, and how well it was fitted."""

import json
import runpy
import sys
from dataclasses import asdict

import numpy as np
import pytest
from mmengine.config import Config

from prunet_mm.errors import ConfigError, LatencyTableError
from prunet_mm.estimates import published, roofline
from prunet_mm.estimates.roofline import DEVICES, Roofline, estimated_table, launched, terms
from prunet_mm.latency import LatencyTable
from prunet_mm.spec import BlockKey, SearchSpace, load_zoo

V100, A100 = DEVICES['v100'], DEVICES['a100']
NAME = 'v100_trt_fp16_b1'


@pytest.fixture(scope='module')
def fitting(root):
    return runpy.run_path(str(root / 'benchmarks/fit_roofline.py'))


@pytest.fixture(scope='module')
def refitted(fitting):
    return fitting['report']()


@pytest.fixture(scope='module')
def written(fitting, tmp_path_factory):
    """The folder to which the command has written."""
    folder, argv = tmp_path_factory.mktemp('tree'), sys.argv
    sys.argv = ['fit_roofline.py', '--out', str(folder)]
    try:
        fitting['main']()
    finally:
        sys.argv = argv
    return folder


@pytest.fixture(scope='module')
def v100_space(root):
    config = Config.fromfile(root / 'configs/search/prunet_v100.py')
    return SearchSpace.from_dict(config.space.to_dict())


def kinds(**fields):
    key = BlockKey('irb', 64, 64, 256, 3, 1, 'relu', 0, 14, 14)._replace(**fields)
    return [kernel.kind for kernel in launched(key)]


def test_every_swish_is_a_kernel_of_its_own_and_relu_is_none():
    assert kinds() == ['gemm', 'depthwise', 'gemm']
    assert kinds(act='swish') == ['gemm', 'act', 'depthwise', 'act', 'gemm']
    assert kinds(op='fused_irb', act='swish') == ['gemm', 'act', 'gemm']
    assert kinds(op='conv', hidden=0, act='swish') == ['gemm', 'act']
    assert kinds(op='shortcut', hidden=0, kernel=1, act='swish') == ['gemm']
    assert kinds(op='ds', hidden=0, act='hard_swish') == ['depthwise', 'act', 'gemm']
    assert kinds(op='ds', hidden=0, act='relu6', act_last=True) == ['depthwise', 'gemm']
    assert kinds(op='tail', act='swish', features=32) == [
        *('gemm', 'act', 'pool', 'gemm', 'act', 'gemm')
    ]


def test_the_gate_of_squeeze_and_excitation_is_part_of_the_product():
    assert kinds(se=16)[2:] == ['pool', 'gemm', 'gemm', 'scale', 'gemm']
    assert kinds(se=16, act='swish')[4:] == ['pool', 'gemm', 'act', 'gemm', 'scale', 'gemm']


def test_terms_of_a_convolution_are_its_bytes_and_flops_at_the_datasheets_peaks():
    key = BlockKey('conv', 64, 128, 0, 3, 2, 'relu', 0, 28, 28)
    outputs, products = 4 * 14 * 14 * 128, 9 * 64
    moved = 2 * (4 * 28 * 28 * 64 + outputs + products * 128)
    expected = [
        1,
        moved / 900e9 * 1e3,
        2 * outputs * products / 125e12 * 1e3,
        0,
        2 * products / (125e12 / 80) * 1e3,
    ]
    np.testing.assert_allclose(terms(key, V100, 4), expected)


def test_depthwise_flops_run_on_float32_units_and_have_no_depth():
    irb, wider = (
        terms(BlockKey('irb', 8, 8, hidden, 5, 1, 'relu', 0, 14, 14), V100, 2)
        for hidden in (64, 128)
    )
    flops = 2 * 2 * 14 * 14 * 64 * 25
    np.testing.assert_allclose((wider - irb)[3], flops / 15.7e12 * 1e3)
    np.testing.assert_allclose((wider - irb)[4], 2 * 64 / (125e12 / 80) * 1e3)


def test_channels_are_padded_to_a_multiple_of_eight():
    narrow, wide = (
        terms(BlockKey('conv', channels, 32, 0, 3, 2, 'relu', 0, 32, 32), V100, 1)
        for channels in (3, 8)
    )
    assert narrow.tolist() == wide.tolist()


def test_a_residual_is_read_once_more():
    key = BlockKey('irb', 64, 64, 128, 3, 1, 'relu', 0, 14, 14)
    bare = key._replace(residual=False)
    assert (terms(key, V100, 1) - terms(bare, V100, 1))[1] == pytest.approx(
        2 * 14 * 14 * 64 / 900e9 * 1e3
    )


def test_parameters_become_coefficients_and_back():
    model = Roofline(0.004, 0.7, 0.9, 0.2, 90.0, 0.05)
    again = Roofline.from_coefficients(model.coefficients, 0.05)
    assert asdict(again) == pytest.approx(asdict(model))


def test_a_network_is_the_sum_of_its_blocks_and_the_overhead():
    model, spec = Roofline.load(), load_zoo('gpunet_1')
    blocks_ms = sum(model.block_ms(key, A100, 8) for key in spec.block_keys())
    assert model.predict_ms(spec, A100, 8) == pytest.approx(blocks_ms + model.overhead_ms)


def test_the_shipped_parameters_are_what_the_fit_finds(refitted):
    model, found = refitted
    shipped = roofline.load_fit()
    assert shipped['parameters'] == pytest.approx(asdict(model), rel=1e-4)
    for device, errors in found['errors'].items():
        assert shipped['errors'][device] == pytest.approx(errors, abs=2e-4)


def numbers(data, at=''):
    """All numbers in JSON, by where they are."""
    if isinstance(data, (dict, list)):
        parts = data.items() if isinstance(data, dict) else enumerate(data)
        return {k: v for name, part in parts for k, v in numbers(part, f'{at}/{name}').items()}
    return {at: data} if isinstance(data, (int, float)) else {}


@pytest.mark.parametrize(
    ('name', 'digits'),
    [
        ('prunet_mm/estimates/roofline.json', 4),
        ('prunet_mm/latency/tables/v100_trt_fp16_b1_estimated.json', 7),
        ('benchmarks/results/roofline.json', 4),
    ],
)
def test_one_command_writes_what_is_shipped(written, root, name, digits):
    ours, shipped = (numbers(json.loads((at / name).read_text())) for at in (written, root))
    assert ours == pytest.approx(shipped, rel=1e-4, abs=1.1 * 10**-digits)


def test_at_most_six_parameters_that_are_possible(refitted):
    parameters = asdict(refitted[0])
    assert len(parameters) <= 6
    for name, value in parameters.items():
        assert 0 < value <= (1.0 if name.endswith('efficiency') else 1000)


def test_a_network_left_out_is_predicted_to_five_percent(refitted):
    for name in (V100.published_as, A100.published_as):
        errors = refitted[1]['errors'][name]
        assert errors['left_out'] <= 0.05
        assert errors['left_out_batch_1'] <= 0.05
        assert errors['in_sample'] <= errors['left_out']


def test_a_network_left_out_was_not_fitted_on(fitting):
    data = fitting['Data']()
    everything = np.ones(len(data.latency_ms), bool)
    before = fitting['left_out'](data, everything, 0.066)
    own = data.network == 'gpunet_2'
    data.latency_ms[own] *= 10  # what was predicted for it must not move
    after = fitting['left_out'](data, everything, 0.066)
    np.testing.assert_allclose((1 + after[own]) * 10, 1 + before[own])


def test_the_v100_is_predicted_from_figures_of_the_a100_alone(refitted):
    errors = refitted[1]['variants']['fitted on A100 alone'][V100.published_as]
    assert errors['in_sample'] <= 0.07  # none of the V100's figures is in this fit
    assert errors['left_out'] <= 0.07


def test_published_figures_belong_to_a_network_not_to_a_name():
    spec = load_zoo('prunet_p0')
    assert published.find_published(spec, 'V100-32GB', 1) == 0.63
    assert published.find_published(spec, 'V100-32GB', 3) is None
    other = spec.model_copy(update=dict(resolution=256))
    assert published.find_published(other, 'V100-32GB', 1) is None
    assert published.find_published(load_zoo('prunet_p1'), 'V100-32GB', 1) is None


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(ConfigError, match='device "h100", only for v100, a100'):
        roofline.find_device('h100')


def test_the_shipped_table_is_what_the_model_says_of_the_v100_space(v100_space):
    table = LatencyTable.load(NAME)
    assert table.to_dict() == estimated_table(v100_space, V100, 1).to_dict()
    assert (table.kind, table.device, table.batch) == ('estimated', V100.name, 1)
    assert {(entry.samples, entry.iqr_ms) for entry in table.entries} == {(0, 0.0)}
    assert table.protocol['parameters'] == roofline.load_fit()['parameters']
    assert table.describe().startswith('estimated on Tesla V100')


def test_the_shipped_table_equals_the_model_at_every_width(v100_space):
    table, model = LatencyTable.load(NAME), Roofline.load()
    for key in v100_space.block_keys():
        assert table.block_ms(key) == pytest.approx(model.block_ms(key, V100, 1), rel=1e-4)
    for spec in (*map(load_zoo, ('prunet_p0', 'prunet_p1')), v100_space.largest()):
        assert table.predict_ms(spec) == pytest.approx(model.predict_ms(spec, V100, 1), rel=1e-4)


def test_widths_off_the_padding_are_all_in_an_estimated_table(v100_space):
    stages = [dict(width=16, stride=2, depth=1, max_expansion=2, granularity=4, kernels=[3])]
    space = SearchSpace.from_dict(
        dict(name='odd', resolution=32, stem=dict(out_channels=12), stages=stages)
    )
    table, model = estimated_table(space, A100, 4), Roofline.load()
    widths = [entry.hidden for entry in table.entries if entry.op == 'irb']
    assert widths == list(range(4, 25, 4))
    for key in space.block_keys():
        assert table.block_ms(key) == pytest.approx(model.block_ms(key, A100, 4), rel=1e-3)


def test_the_v100_config_searches_by_the_shipped_table_for_what_prunet_p0_takes(root):
    latency = Config.fromfile(root / 'configs/search/prunet_v100.py').model.latency
    table = LatencyTable.load(latency.table)
    assert table.kind == 'estimated' and table.batch == latency.batch
    assert 0.98 * latency.budget_ms <= table.predict_ms(load_zoo('prunet_p0')) <= latency.budget_ms


@pytest.mark.parametrize('path', ['nothing', './v100_trt_fp16_b1', 'v100_trt_fp16_b1.json'])
def test_only_a_bare_name_is_looked_for_in_the_package(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LatencyTableError, match='there is no latency table'):
        LatencyTable.load(path)
