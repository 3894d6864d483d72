import pytest

from prunet_mm.errors import SpecError
from prunet_mm.spec import SearchSpace

IRB3 = dict(op='irb', kernel=3, expansions=[3])
IRB5 = dict(op='irb', kernel=5, expansions=[2, 4, 6])
SHORTCUT = dict(op='shortcut', kernel=1)


def space(**changes):
    """Two stages, of which the second has the ``changes``; it gets 8 channels and has 16."""
    common = dict(stride=2, depth=2, max_expansion=2, granularity=8)
    stages = [dict(common, width=8), {**common, 'width': 16, **changes}]
    parts = dict(name='s', resolution=8, stem=dict(out_channels=8), stages=stages)
    return SearchSpace.from_dict(parts, 'space.py')


def found(**changes):
    """Names and hidden widths at the two layers of the second stage."""
    positions = space(**changes).positions()[2:]
    return [{one.name: one.widths for one in position.candidates} for position in positions]


def test_expansions_are_multiples_of_the_layers_input_channels():
    first, second = found(candidates=[IRB3, IRB5])
    assert first == {'irb_k3': (24,), 'irb_k5': (16, 32, 48)}
    assert second == {'irb_k3': (48,), 'irb_k5': (32, 64, 96)}


def test_the_first_layer_may_have_candidates_of_its_own():
    first, second = found(candidates=[IRB3], first_candidates=[SHORTCUT, IRB3])
    assert first == {'shortcut_k1': (), 'irb_k3': (24,)}
    assert second == {'irb_k3': (48,)}


def test_the_others_may_still_be_said_in_short():
    first, second = found(ops=['conv'], kernels=[3], first_candidates=[SHORTCUT])
    assert first == {'shortcut_k1': ()}
    assert second == {'conv_k3': ()}


def test_the_stages_grid_is_for_candidates_without_expansions():
    first, second = found(candidates=[dict(op='irb', kernel=3), IRB5])
    assert first['irb_k3'] == (8, 16)
    assert second['irb_k3'] == (8, 16, 24, 32)


def test_the_stages_grid_does_not_matter_where_all_have_expansions():
    assert found(candidates=[IRB3], granularity=999)[0] == {'irb_k3': (24,)}
    with pytest.raises(SpecError, match='granularity, 999'):
        space(candidates=[IRB3, dict(op='irb', kernel=5)], granularity=999)


def test_a_shortcut_has_kernel_1_whatever_the_kernels():
    first, second = found(ops=['irb'], first_ops=['shortcut', 'irb'], kernels=[3, 5])
    assert list(first) == ['shortcut_k1', 'irb_k3', 'irb_k5']
    assert list(second) == ['irb_k3', 'irb_k5']


def test_a_shortcut_has_no_squeeze_and_excitation():
    first = space(candidates=[SHORTCUT, IRB3], se=True).positions()[2]
    assert [one.se for one in first.candidates] == [0, 2]


def test_expansions_mean_the_fraction_that_floats_only_approach():
    listed = [dict(op='irb', kernel=3, expansions=[4 / 3, 8 / 3])]
    assert found(candidates=listed, first_candidates=[SHORTCUT], width=9)[1] == {'irb_k3': (12, 24)}
    listed = [dict(op='irb', kernel=3, expansions=[1.1, 2.2, 3.3])]
    assert found(candidates=listed, first_candidates=[SHORTCUT], width=10)[1] == {
        'irb_k3': (11, 22, 33)
    }


def test_a_network_off_the_expansions_is_told_so():
    one = space(candidates=[IRB3])
    layers = list(one.largest().layers)
    layers[-1] = layers[-1].model_copy(update=dict(hidden=32))
    spec = one.largest().model_copy(update=dict(layers=tuple(layers)))
    assert one.why_not(spec) == 'layers[3].hidden: found 32, expected 48'


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(candidates=[]), 'candidates: found an empty list, expected at least one entry'),
        (
            dict(candidates=[IRB3, IRB5, dict(IRB3, expansions=[6])]),
            'candidates[2]: found irb_k3 twice, expected one, with all its expansions in one list',
        ),
        (
            dict(candidates=[IRB3], first_candidates=[SHORTCUT, SHORTCUT]),
            'first_candidates[1]: found shortcut_k1 twice, expected one, with all its exp',
        ),
        (
            dict(candidates=[IRB3], ops=['irb']),
            "ops: found ('irb',), expected none, since candidates says it, too",
        ),
        (
            dict(candidates=[IRB3], kernels=[3, 5]),
            'kernels: found (3, 5), expected none, since candidates says it, too',
        ),
        (
            dict(first_candidates=[IRB3], first_ops=['irb']),
            "first_ops: found ('irb',), expected none, since first_candidates says it, too",
        ),
        (dict(candidates=[dict(op='irb')]), 'candidates[0].kernel: this field is missing'),
        (
            dict(candidates=[dict(IRB3, expansion=3)]),
            'candidates[0].expansion: unknown field, perhaps expansions is meant',
        ),
        (
            dict(candidates=[dict(SHORTCUT, kernel=3)]),
            'candidates[0].kernel: found 3, expected 1, since op is "shortcut"',
        ),
        (
            dict(candidates=[dict(SHORTCUT, expansions=[2])]),
            'candidates[0].expansions: found 2, expected none, since a shortcut has no hidden',
        ),
        (
            dict(candidates=[dict(op='conv', kernel=3, expansions=[2])]),
            'candidates[0].expansions: found 2, expected none, since a conv has no hidden width',
        ),
    ],
)
def test_an_error_names_the_field_and_what_is_allowed(changes, expected):
    with pytest.raises(SpecError) as error:
        space(**changes)
    assert str(error.value).startswith(f'space.py: stages[1].{expected}')


NUMBER = 'expected a positive number, such as 3 or 4.5'
WHOLE = 'expected a whole number of channels, 1 or more'
ORDER = 'expected ascending numbers at equal distances, such as 2, 4, 6'


@pytest.mark.parametrize(
    ('expansions', 'expected'),
    [
        ([], ': found an empty list, expected at least one entry'),
        (3, ': found 3, expected a list'),
        ([0], f'[0]: found 0, {NUMBER}'),
        ([-1.5], f'[0]: found -1.5, {NUMBER}'),
        (['3'], f'[0]: found "3", {NUMBER}'),
        ([True], f'[0]: found True, {NUMBER}'),
        ([float('inf')], f'[0]: found inf, {NUMBER}'),
        ([3, 4, 6], f': found 3, 4, 6, {ORDER}'),
        ([6, 3], f': found 6, 3, {ORDER}'),
        ([3, 3], f': found 3, 3, {ORDER}'),
        ([3, 3 + 1e-9], f': found 3, 3, {ORDER}'),
        ([1e-9], f'[0]: found 1e-09, which makes the hidden width 1e-09 x 8 = 0, {WHOLE}'),
        ([0.1], f'[0]: found 0.1, which makes the hidden width 0.1 x 8 = 0.8, {WHOLE}'),
        ([2, 2.3], f'[1]: found 2.3, which makes the hidden width 2.3 x 8 = 18.4, {WHOLE}'),
    ],
)
def test_expansions_are_ascending_even_and_make_whole_channels(expansions, expected):
    with pytest.raises(SpecError) as error:
        space(candidates=[dict(op='irb', kernel=3, expansions=expansions)])
    field = f'space.py: stages[1].candidates[0].expansions{expected}'
    assert str(error.value) == field
