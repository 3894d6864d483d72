import pytest

from prunet_mm.report.chart import Chart, Line, padded, polyline, steps, ticks


@pytest.mark.parametrize(
    'low, high, expected',
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (98, 502, [100, 200, 300, 400, 500]),
        (5.03, 5.34, [5.1, 5.2, 5.3]),
        (-0.7, 0.2, [-0.5, -0.25, 0]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 4) == expected


def test_a_range_is_never_empty():
    for values in ([], [0.0], [3.0, 3.0]):
        low, high = padded(values, 0.1)
        assert low < high


def test_level_stretches_are_left_out_of_a_line_and_its_ends_kept():
    assert polyline([(1, 5), (2, 5), (3, 5), (4, 6)]) == '1,5 3,5 4,6'


def test_a_band_has_right_angles_where_widths_jump():
    assert steps([(1, 8), (2, 8), (3, 16), (4, 16)]) == [(1, 8), (3, 8), (3, 16), (4, 16)]


def test_marks_stand_where_the_line_is():
    chart = Chart(
        '', [Line('a', [(0, 0), (10, 4)], '#000')], '', '', x_range=(0, 10), y_range=(0, 8)
    )
    assert chart.left(5) == 50
    assert chart.bottom(2) == 25
    assert chart.view_box == '0 -8 10 8'
