import pytest
import torch

from prunet_mm.errors import PrunetError
from prunet_mm.timing.agreement import check, disagreement, tensors

X = torch.tensor([3.0, 4.0])


def test_the_distance_is_relative_to_what_is_expected():
    assert disagreement(X + torch.tensor([0.0, 0.5]), X) == pytest.approx(0.1)


def test_of_several_outputs_the_worst_counts():
    assert disagreement([X, 1.5 * X], dict(a=X, b=X)) == pytest.approx(0.5)


def test_other_shapes_or_numbers_of_outputs_never_agree():
    assert disagreement(X, X[:1]) == float('inf')
    assert disagreement((X, X), X) == float('inf')


def test_outputs_are_found_however_deep():
    assert len(list(tensors([X, (X, dict(a=X))]))) == 3


@pytest.mark.parametrize(('error', 'dtype'), [(0.03, 'float16'), (0.1, 'bfloat16')])
def test_rounding_is_allowed_for_by_type(error, dtype):
    check(X * (1 + error), X, dtype)
    with pytest.raises(PrunetError, match='away from that of eager float32'):
        check(X * (1 + error), X, 'float32')


@pytest.mark.parametrize(
    ('value', 'words'), [(float('nan'), 'has NaN'), (float('inf'), 'has infinite values')]
)
def test_what_is_not_finite_is_refused_also_where_the_model_is_so(value, words):
    x = torch.tensor([1.0, value])
    with pytest.raises(PrunetError, match=words):
        check(x, x, 'bfloat16')


def test_nothing_agrees_with_nan():
    with pytest.raises(PrunetError, match='away from that of eager float32'):
        check(X, X * float('nan'), 'bfloat16')
