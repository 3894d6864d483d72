import json
import random

import numpy as np
import pytest
from scipy import stats

from prunet_mm.errors import LatencyTableError, PrunetError
from prunet_mm.latency import LatencyTable, Validation
from prunet_mm.latency.table import TABLES, readable
from prunet_mm.spec import NetworkSpec


def curve(table, key, widths) -> np.ndarray:
    """Latencies in ms of a block at several hidden widths."""
    return np.array([table.block_ms(key._replace(hidden=width)) for width in widths])


@pytest.fixture
def network() -> NetworkSpec:
    layer = dict(in_channels=4, out_channels=4, kernel=3, stride=1, act='relu')
    return NetworkSpec.from_dict(
        dict(
            name='net',
            resolution=8,
            in_channels=4,
            stem=[dict(layer, op='conv', stage=0)],
            layers=[dict(layer, op='irb', stage=1, hidden=w) for w in (8, 12)],
        )
    )


def test_comes_back_from_a_file_as_it_was(make_table, tmp_path):
    validation = Validation(fitted_on=2, predicted_ms=(1.0, 2.0), measured_ms=(1.1, 1.9))
    table = make_table(network_overhead_ms=-0.25, network_scale=1.1, validation=validation)
    table.save(tmp_path / 'table.json')
    loaded = LatencyTable.load(tmp_path / 'table.json')
    assert loaded.to_dict() == table.to_dict()
    assert loaded.digest == table.digest
    loaded.save(tmp_path / 'again.json')
    assert (tmp_path / 'again.json').read_bytes() == (tmp_path / 'table.json').read_bytes()


@pytest.mark.parametrize('seed', range(20))
def test_any_table_comes_back_from_a_file_as_it_was(make_table, irb, tmp_path, seed):
    rng = random.Random(seed)
    entries = {
        irb._replace(
            op=rng.choice(['irb', 'fused_irb', 'conv', 'shortcut', 'tail']),
            in_channels=rng.randint(1, 2000),
            hidden=rng.randint(0, 9000),
            se=rng.choice([0, 4]),
            padding=rng.choice([None, 0, 2]),
            residual=rng.choice([None, False, True]),
            features=rng.choice([0, 1984]),
        ): rng.lognormvariate(0, 9)
        for _ in range(rng.randint(1, 40))
    }
    table = make_table(
        entries,
        device=rng.choice(['Größe 5 "µ"', 'a\\b', '\n']),
        network_overhead_ms=abs(rng.gauss(0, 1)),
        network_scale=rng.lognormvariate(0, 1),
        protocol=dict(nested=[dict(part=rng.random()), None, True, 'x']),
    )
    table.save(tmp_path / 'table.json')
    loaded = LatencyTable.load(tmp_path / 'table.json')
    assert loaded.to_dict() == table.to_dict()
    assert {key: loaded.block_ms(key) for key in entries} == {
        key: table.block_ms(key) for key in entries
    }


def test_the_file_holds_raw_medians_and_names_units(make_table, tmp_path):
    make_table().save(tmp_path / 'table.json')
    rows = json.loads((tmp_path / 'table.json').read_text())['entries']
    assert [row['latency_ms'] for row in rows] == [0.5, 1.0, 3.0, 2.0]


def test_an_entry_is_believed_as_far_as_noise_does_not_explain_it(make_table, irb):
    """Two of them fall from 3 to 2 ms where the width rises; made to rise, both are at 2.5 ms."""
    known, unknown = make_table(), make_table(iqr_ms=3.0)
    assert (known.trust, unknown.trust) == (1, 0)
    assert curve(known, irb, [8, 16, 24]).tolist() == [1, 3, 2]
    assert curve(unknown, irb, [8, 16, 24]).tolist() == [1, 2.5, 2.5]
    between = make_table(iqr_ms=0.5)
    error = 0.93 * 0.5 / 12**0.5 / 2.5  # of the two that part from the curve, by a fifth each
    assert between.trust == pytest.approx(1 - error**2 / 0.2**2)
    assert 0 < between.trust < 1
    assert curve(between, irb, [16, 24]).tolist() == [
        pytest.approx(2.5 + 0.5 * between.trust),
        pytest.approx(2.5 - 0.5 * between.trust),
    ]


def test_what_rises_is_as_it_was_measured_however_noisy(make_table, irb):
    rising = {irb._replace(hidden=width): width / 8 for width in (8, 16, 24)}
    assert curve(make_table(rising, iqr_ms=9.0), irb, [8, 16, 24]).tolist() == [1, 2, 3]


def test_an_estimate_is_taken_as_it_is(make_table, irb):
    assert curve(make_table(kind='estimated'), irb, [16, 24]).tolist() == [3, 2]


def test_is_linear_between_measured_widths(make_table, irb):
    np.testing.assert_allclose(curve(make_table(), irb, [8, 10, 12, 16]), [1, 1.5, 2, 3])


@pytest.mark.parametrize('noise', [0.01, 0.03, 0.05, 0.1, 0.2])
def test_noisy_entries_are_shrunk_as_far_as_is_good_for_them(make_table, irb, noise):
    """Latencies with dips of 5 % of their own: as near to them as the better of both extremes."""
    widths, samples, off = range(8, 8 * 41, 8), make_table().entries[0].samples, np.zeros(3)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        true_ms = np.linspace(1, 3, 40) * (1 + 0.05 * rng.standard_normal(40))
        found_ms = true_ms * (1 + noise * rng.standard_normal(40))
        entries = {irb._replace(hidden=w): ms for w, ms in zip(widths, found_ms, strict=True)}
        iqr_ms = noise * float(found_ms.mean()) * samples**0.5 / 0.93
        shrunk_ms, rising_ms = (
            curve(make_table(entries, iqr_ms=spread), irb, widths) for spread in (iqr_ms, 1e6)
        )
        off += [((ms / true_ms - 1) ** 2).mean() for ms in (shrunk_ms, found_ms, rising_ms)]
    assert off[0] <= 1.1 * min(off[1:])


def test_the_width_of_the_key_does_not_matter_to_its_curve(make_table, irb):
    curves = [curve(make_table(), irb._replace(hidden=w), [8, 24]).tolist() for w in (0, 8, 999)]
    assert curves == [[1.0, 2.0]] * 3


def test_tells_measured_widths_from_interpolated_ones(make_table, irb):
    table = make_table()
    assert [table.is_interpolated(irb._replace(hidden=w)) for w in (8, 12, 16, 24)] == [
        *(False, True, False, False)
    ]
    with pytest.raises(LatencyTableError, match='no latency for irb 4->4 hidden 32'):
        table.is_interpolated(irb._replace(hidden=32))


@pytest.mark.parametrize('seed', range(30))
def test_interpolation_lies_between_its_neighbours(make_table, irb, seed):
    rng = np.random.default_rng(seed)
    widths = np.unique(rng.integers(1, 50, size=rng.integers(2, 12)) * 8).tolist()
    noisy_ms = np.sort(rng.lognormal(size=len(widths))) * rng.lognormal(0, 0.2, len(widths))
    table = make_table(
        {irb._replace(hidden=w): float(ms) for w, ms in zip(widths, noisy_ms, strict=True)},
        iqr_ms=float(rng.lognormal(-2)),
    )
    for low, high in zip(widths, widths[1:], strict=False):
        ends_ms, between_ms = (curve(table, irb, w) for w in ([low, high], range(low, high + 1)))
        assert between_ms.min() >= ends_ms.min() - 1e-12
        assert between_ms.max() <= ends_ms.max() + 1e-12


@pytest.mark.parametrize('width', [4, 7, 25, 32])
def test_nothing_is_extrapolated(make_table, irb, width):
    assert irb._replace(hidden=width) not in make_table()
    with pytest.raises(LatencyTableError, match=f'irb 4->4 hidden {width} k3'):
        make_table().block_ms(irb._replace(hidden=width))


def test_the_width_of_a_tails_conv_is_not_interpolated(make_table, irb):
    tail = irb._replace(op='tail')
    table = make_table({tail._replace(hidden=8): 1.0, tail._replace(hidden=16): 2.0})
    assert tail._replace(hidden=16) in table
    assert tail._replace(hidden=12) not in table


@pytest.mark.parametrize(
    'other',
    [
        dict(op='fused_irb'),
        dict(in_channels=5),
        dict(out_channels=5),
        dict(kernel=5),
        dict(stride=2),
        dict(act='swish'),
        dict(se=1),
        dict(height=7),
        dict(width=7),
    ],
)
def test_everything_that_changes_the_kernels_is_part_of_the_key(make_table, irb, other):
    assert irb in make_table()
    assert irb._replace(**other) not in make_table()


def test_missing_blocks_are_one_sentence_with_the_command(make_table, irb):
    keys = [irb._replace(kernel=kernel) for kernel in (3, 5, 7, 5)]
    with pytest.raises(LatencyTableError) as error:
        make_table().require(keys)
    text = str(error.value)
    assert 'irb 4->4 hidden 8 k5 s1 relu on 8 x 8 px and 1 more blocks' in text
    assert 'python tools/build_latency_table.py CONFIG --out PATH' in text


def test_missing_blocks_name_the_file_they_are_missing_from(make_table, irb, tmp_path):
    path = tmp_path / 'table.json'
    make_table().save(path)
    with pytest.raises(LatencyTableError, match=f'^{path} has no latency .* --out {path}$'):
        LatencyTable.load(path).block_ms(irb._replace(act='swish'))


def test_a_network_costs_the_scaled_sum_of_its_blocks_and_the_overhead(make_table, network):
    assert make_table().predict_ms(network) == pytest.approx(0.5 + 1.0 + 2.0)
    fitted = make_table(network_overhead_ms=0.2, network_scale=2.0)
    assert fitted.predict_ms(network) == pytest.approx(0.2 + 2 * 3.5)


def test_blocks_are_scaled_so_that_they_still_add_up(make_table, network, irb):
    table = make_table(network_overhead_ms=0.2, network_scale=2.0)
    blocks_ms = sum(map(table.block_ms, network.block_keys()))
    assert table.predict_ms(network) == pytest.approx(0.2 + blocks_ms)
    assert curve(table, irb, [8, 24]).tolist() == [2.0, 4.0]


def test_tables_that_predict_alike_have_one_digest(make_table, irb):
    digest = make_table().digest
    assert make_table(date='2030-01-01').digest == digest
    for other in (make_table({irb: 1.0}), make_table(network_scale=1.1)):
        assert other.digest != digest


@pytest.mark.parametrize(
    'changed',
    [
        dict(kind='estimated'),
        dict(device='another'),
        dict(backend='torchscript'),
        dict(dtype='float16'),
        dict(batch=1),
        dict(threads=2),
    ],
)
def test_what_a_table_is_of_is_in_its_digest(make_table, changed):
    assert make_table(**changed).digest != make_table().digest


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        (dict(dtype='int8'), 'dtype: found "int8", expected one of float32, float16, bfloat16'),
        (dict(batch=0), 'batch: found 0, expected a positive integer'),
        (dict(threads='two'), 'threads: found "two", expected a positive integer'),
        (dict(kind='guessed'), 'kind: found "guessed", expected "measured" or "estimated"'),
        (dict(network_overhead_ms=-100), 'network_overhead_ms: found -100, expected 0 or more: of'),
        (
            dict(
                network_overhead_ms=-3.0,
                validation=dict(fitted_on=1, predicted_ms=[3.0], measured_ms=[3.1]),
            ),
            'expected -2.79 or more: of the networks of a validation the fastest takes 3.1 ms',
        ),
    ],
)
def test_a_table_edited_by_hand_is_refused_in_a_sentence(make_table, changed, sentence):
    with pytest.raises(LatencyTableError, match=sentence):
        LatencyTable.from_dict(make_table().to_dict() | changed)


def test_an_overhead_below_zero_needs_networks_that_were_measured(make_table):
    validation = dict(fitted_on=1, predicted_ms=[3.0], measured_ms=[3.1])
    data = make_table().to_dict() | dict(network_overhead_ms=-0.5, validation=validation)
    assert LatencyTable.from_dict(data).network_overhead_ms == -0.5


def test_an_estimate_says_so(make_table):
    assert make_table(kind='estimated').describe().startswith('estimated on a device: ')


def test_a_missing_file_names_the_command(tmp_path):
    path = tmp_path / 'none.json'
    with pytest.raises(LatencyTableError, match=f'{path}; measure one: python .* --out {path}'):
        LatencyTable.load(path)


@pytest.mark.parametrize('part', [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(make_table, tmp_path, part):
    path = tmp_path / 'table.json'
    make_table().save(path)
    text = path.read_text().strip()
    path.write_text(text[: int(part * len(text))])
    with pytest.raises(LatencyTableError, match='cut off or not JSON .* measure it again'):
        LatencyTable.load(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / 'table.json').write_bytes(b'\x80\x04\x95')
    with pytest.raises(LatencyTableError, match='not JSON'):
        LatencyTable.load(tmp_path / 'table.json')


def entry(**changes):
    def change(data):
        data['entries'][1].update(changes)

    return change


def head(**changes):
    return lambda data: data.update(changes)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (head(schema_version=2), 'schema_version: found 2, expected 1'),
        (lambda data: data.pop('schema_version'), 'it has no schema_version'),
        (lambda data: data.pop('device'), 'device: this field is missing'),
        (head(units='s'), 'units: unknown field'),
        (head(kind='guessed'), 'kind: found "guessed", expected "measured" or "estimated"'),
        (head(batch='64'), 'batch: found "64", expected a positive integer'),
        (head(network_scale=0.0), 'network_scale: found 0.0, expected a positive number'),
        (head(entries=[]), 'entries: found an empty list'),
        (entry(latency_us=3.0), 'entries[1].latency_us: unknown field, perhaps latency_ms'),
        (entry(latency_ms=0.0), 'entries[1].latency_ms: found 0.0, expected a positive number of'),
        (entry(latency_ms=float('nan')), 'entries[1].latency_ms: found nan, expected a positive'),
        (entry(iqr_ms=-1.0), 'entries[1].iqr_ms: found -1.0, expected'),
        (
            entry(op='pool'),
            'entries[1].op: found "pool", expected "conv", "ds", "fused_irb", "irb", "shor',
        ),
        (
            head(validation=dict(fitted_on=1, predicted_ms=[1.0], measured_ms=[1.0, 2.0])),
            'validation: 1 latencies are predicted and 2 are measured',
        ),
        (entry(hidden=16), 'entries[2]: irb 4->4 hidden 16 k3 s1 relu on 8 x 8 px is there twice'),
    ],
)
def test_a_wrong_file_is_one_sentence(make_table, tmp_path, change, sentence):
    data = make_table().to_dict()
    change(data)
    path = tmp_path / 'table.json'
    path.write_text(json.dumps(data))
    with pytest.raises(LatencyTableError) as error:
        LatencyTable.load(path)
    assert sentence in str(error.value)
    assert str(path) in str(error.value)


def test_a_failed_save_leaves_the_old_file(make_table, tmp_path, monkeypatch):
    path = tmp_path / 'table.json'
    make_table().save(path)
    old = path.read_bytes()

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(PrunetError, match='No space left on device'):
        make_table(device='another').save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_validation_reports_error_bias_and_worst():
    validation = Validation(fitted_on=3, predicted_ms=(1.1, 1.8), measured_ms=(1.0, 2.0))
    np.testing.assert_allclose(validation.errors, [0.1, -0.1])
    text = Validation(fitted_on=3, predicted_ms=(1.1, 1.6), measured_ms=(1.0, 2.0)).describe()
    assert 'error 15.0%, bias -5.0%, worst -20.0%' in text


@pytest.mark.parametrize('seed', range(10))
def test_tau_equals_scipys(seed):
    rng = np.random.default_rng(seed)
    predicted, measured = (rng.integers(1, 9, size=(2, rng.integers(2, 40))) / 4).tolist()
    expected = stats.kendalltau(predicted, measured).statistic
    tau = Validation(fitted_on=3, predicted_ms=predicted, measured_ms=measured).tau
    assert (tau is None) if np.isnan(expected) else tau == pytest.approx(expected)


def test_ranks_are_reported_where_there_are_some():
    assert 'tau' not in Validation(fitted_on=1, predicted_ms=(1,), measured_ms=(1.1,)).describe()
    equal = Validation(fitted_on=1, predicted_ms=(1, 1), measured_ms=(1.1, 1.2))
    assert equal.describe().endswith('Kendall tau undefined')
    text = Validation(fitted_on=1, predicted_ms=(1, 2, 3), measured_ms=(1, 2.5, 2.4)).describe()
    assert text.endswith('Kendall tau 0.333')


def test_the_digest_of_a_table_that_ships_stays():
    # Searches and tables refer to each other by them.
    table = LatencyTable.load(TABLES / 'v100_trt_fp16_b1_estimated.json')
    assert table.digest == '798ec7c87821'


def test_a_newer_field_makes_another_block_and_another_digest(make_table):
    data = make_table().to_dict()
    data['entries'] = [entry for entry in data['entries'] if entry['op'] == 'irb'][:1]
    digests = set()
    for field in (dict(), dict(act_last=True), dict(padding='same'), dict(se=2, se_act='relu6')):
        table = LatencyTable.from_dict(dict(data, entries=[dict(data['entries'][0], **field)]))
        assert LatencyTable.from_dict(table.to_dict()) == table
        digests.add(table.digest)
        assert all(
            f'{name} {value}' in readable(table.entries[0].key) for name, value in field.items()
        )
    assert len(digests) == 4


def test_a_measured_table_goes_before_an_estimated_one_of_its_name(
    make_table, tmp_path, monkeypatch
):
    monkeypatch.setattr('prunet_mm.latency.table.TABLES', tmp_path)
    make_table(kind='estimated').save(tmp_path / 'gpu_estimated.json')
    assert LatencyTable.load('gpu').kind == 'estimated'
    make_table().save(tmp_path / 'gpu.json')
    assert LatencyTable.load('gpu').kind == 'measured'
    assert LatencyTable.load('gpu_estimated').kind == 'estimated'
