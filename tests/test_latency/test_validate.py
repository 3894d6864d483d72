import numpy as np
import pytest

from prunet_mm.errors import PrunetError
from prunet_mm.latency import Validation
from prunet_mm.latency.validate import fit, plot_validation, validated
from prunet_mm.spec import NetworkSpec


@pytest.fixture
def networks(irb):
    """Networks of one irb at some hidden widths."""

    def make(widths):
        layer = dict(in_channels=4, out_channels=4, kernel=3, stride=1, act='relu')
        return [
            NetworkSpec.from_dict(
                dict(
                    name='net',
                    resolution=8,
                    in_channels=4,
                    stem=[dict(layer, op='conv', stage=0)],
                    layers=[dict(layer, op='irb', stage=1, hidden=width)],
                )
            )
            for width in widths
        ]

    return make


def test_the_fit_finds_overhead_and_scale():
    predicted_ms = np.linspace(1, 8, 50)
    overhead_ms, scale = fit(predicted_ms, 1.2 * predicted_ms - 0.25)
    assert overhead_ms == pytest.approx(-0.25, abs=0.02)
    assert scale == pytest.approx(1.2, abs=0.01)


def test_the_fit_stays_put_without_evidence():
    overhead_ms, scale = fit(np.array([2.0, 2.01]), np.array([2.01, 2.0]))
    assert abs(overhead_ms) < 0.01
    assert scale == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('seed', range(50))
def test_no_measurement_however_bad_makes_a_table_that_predicts_nothing(seed):
    rng = np.random.default_rng(seed)
    predicted_ms, measured_ms = rng.lognormal(sigma=2, size=(2, rng.integers(2, 9)))
    half = len(measured_ms) // 2
    overhead_ms, scale = fit(predicted_ms, measured_ms[:half])
    assert scale > 0
    assert (overhead_ms + scale * predicted_ms > 0).all()


def test_the_second_half_has_no_part_in_the_fit(make_table, networks):
    table, specs = make_table(), networks([8, 10, 12, 14, 16, 18])
    sums_ms = np.array([table.predict_ms(spec) for spec in specs])
    one, other = (
        validated(table, specs, [*sums_ms[:3], *(factor * sums_ms[3:])]) for factor in (1.0, 1.5)
    )
    assert one.network_scale == other.network_scale == pytest.approx(1)
    assert one.validation.fitted_on == 3
    assert one.validation.errors == pytest.approx([0] * 3, abs=1e-5)
    assert other.validation.errors == pytest.approx([-1 / 3] * 3, abs=1e-5)
    assert other.validation.predicted_ms == pytest.approx([other.predict_ms(s) for s in specs[3:]])


def test_one_network_is_too_few_to_fit(make_table, networks):
    table = make_table()
    assert validated(table, networks([8]), [3.0]) is table


def test_the_plot_is_a_picture(make_table, tmp_path):
    validation = Validation(fitted_on=2, predicted_ms=(1.0, 2.0), measured_ms=(1.1, 1.9))
    plot_validation(make_table(validation=validation), tmp_path / 'table.png')
    assert (tmp_path / 'table.png').read_bytes().startswith(b'\x89PNG')
    with pytest.raises(PrunetError, match='cannot write'):
        plot_validation(make_table(validation=validation), tmp_path / 'none/table.png')
