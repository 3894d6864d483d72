"""The space around a network."""

import random

import pytest

from prunet_mm.errors import SpecError
from prunet_mm.spec import NetworkSpec, SearchSpace, load_zoo


@pytest.fixture(scope='module')
def lite0():
    from pathlib import Path

    return NetworkSpec.load(Path(__file__).parents[2] / 'configs/cls/tf_efficientnet_lite0.json')


def around(spec, **options):
    arch = spec.to_dict() if isinstance(spec, NetworkSpec) else spec
    return SearchSpace.from_dict(dict(type='around', arch=arch, **options))


def changed(spec, at, **fields):
    layers = list(spec.layers)
    layers[at] = layers[at].model_copy(update=fields)
    return spec.model_copy(update=dict(layers=tuple(layers)))


@pytest.mark.parametrize('name', ['prunet_p0', 'prunet_p1'])
def test_a_network_of_the_zoo_is_in_its_space(name):
    assert around(name).why_not(load_zoo(name)) is None


@pytest.mark.parametrize(
    'name',
    ['mobilenetv2_100', 'mobilenetv3_large_100', 'mobilenetv3_small_100', 'mnasnet_100']
    + ['efficientnet_b1', 'tf_efficientnet_b0', 'efficientnet_es', 'tf_efficientnetv2_b0']
    + ['efficientnetv2_s', 'fbnetc_100', 'lcnet_050', 'mobilenetv1_100', 'spnasnet_100'],
)
def test_a_network_of_timm_is_in_its_space(name):
    pytest.importorskip('timm')
    spec = NetworkSpec.from_timm(name)
    space = around(spec, largest=1.5, granularity=16)
    assert space.why_not(spec) is None
    assert around(spec).largest().name == f'around_{spec.name}_largest'
    assert SearchSpace.from_dict(space.to_dict()) == space  # plain data, as checkpoints hold it


def test_smaller_networks_are_inside_and_others_are_not(lite0):
    space = around(lite0, granularity=16)
    assert space.contains(changed(lite0, 1, hidden=16, kernel=5))
    assert space.contains(
        lite0.model_copy(update=dict(layers=(*lite0.layers[:2], *lite0.layers[3:])))
    )
    assert 'hidden: found 20, expected 16 to 96 in steps of 16' in space.why_not(
        changed(lite0, 1, hidden=20)
    )
    assert 'hidden: found 112' in space.why_not(changed(lite0, 1, hidden=112))
    assert 'kernel: found 7' in space.why_not(changed(lite0, 1, kernel=7))
    assert 'padding: found None, expected "same"' in space.why_not(changed(lite0, 1, padding=None))
    assert 'norm_eps' in space.why_not(lite0.model_copy(update=dict(norm_eps=1e-5)))


def test_what_a_search_may_end_in_is_as_the_network_was(lite0):
    space = around(lite0)
    for seed in range(10):
        spec = space.random(random.Random(seed))
        assert space.why_not(spec) is None
        assert (spec.norm_eps, spec.preprocessing) == (lite0.norm_eps, lite0.preprocessing)
        assert spec.macs() <= space.largest().macs()
    assert space.smallest().macs() < lite0.macs() / 8
    assert len(space.smallest().layers) == len(space.stages)


def test_widths_go_down_from_the_networks_own(lite0):
    own = changed(lite0, 2, hidden=150)
    first, second = around(own, granularity=16).positions()[1:3]
    assert [candidate.widths[:2] for candidate in first.candidates] == [(16, 32)] * 2
    assert second.candidates[0].widths[:2] == (6, 22)
    assert second.candidates[0].widths[-1] == 150
    grown = around(own, granularity=16, largest=1.5).positions()[2]
    assert grown.candidates[0].widths[-1] == 150 + 64


def test_kernels_skips_and_stages_that_stay(lite0):
    space = around(lite0, kernels=[], skip=['stage3.layer2'], fixed_stages=[2])
    positions = {position.name: position for position in space.positions()}
    assert [c.kernel for c in positions['stage3.layer2'].candidates] == [5]
    assert [name for name, one in positions.items() if one.skippable] == ['stage3.layer2']
    assert positions['stage2.layer2'].candidates[0].widths == (144,)
    assert not any(one.skippable for one in around(lite0, skip=False).positions())
    assert {c.kernel for c in around(lite0, kernels=[3, 7]).positions()[3].candidates} == {3, 5, 7}
    kept = around(lite0, skip=['stage4.layer2'])
    without_last = lite0.model_copy(update=dict(layers=lite0.layers[:7] + lite0.layers[8:]))
    assert 'stage' not in (kept.why_not(changed(lite0, 6, hidden=8)) or '')
    assert kept.contains(without_last)


def test_what_lies_behind_the_wanted_maps_is_left_out(lite0):
    space = around(lite0, out_indices=[3, 5], resolution=96, name='mine')
    assert (space.name, space.resolution, len(space.stages), space.tail) == ('mine', 96, 5, None)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (dict(arch='nowhere'), 'no network "nowhere" in the zoo'),
        (dict(arch='nowhere.json'), 'cannot read the network nowhere.json'),
        (dict(arch=3), 'arch: found 3, expected a name in the zoo'),
        (dict(arch='gpunet_0'), 'its stages are [1, 2, 3, 4, 6], expected 1 to 5'),
        (dict(arch='gpunet_d1'), 'its stem is not one convolution'),
        (dict(arch='gpunet_1'), 'stage2.layer1 has padding 0, which a space cannot say'),
        (dict(largest=0.5), 'largest: found 0.5, expected a number of at least 1'),
        (dict(kernels=[4]), 'kernels[0]: found 4, expected an odd positive integer'),
        (dict(skip='yes'), 'skip: found "yes", expected True, False or a list'),
        (dict(skip=['stage1.layer1']), 'skip: found "stage1.layer1", expected layers behind'),
        (dict(fixed_stages=[9]), 'fixed_stages: found 9, expected stages of prunet_p0, 1 to 6'),
        (dict(out_indices=[7]), 'out_indices: found 7, expected stages'),
        (dict(granuality=8), 'granuality: unknown field, perhaps granularity is meant'),
        (dict(resolution=16), 'stride: found 2 on a feature map of 1 x 1 px'),
    ],
)
def test_what_makes_no_space_is_one_sentence(options, sentence):
    with pytest.raises(SpecError) as error:
        SearchSpace.from_dict(dict(type='around', **{'arch': 'prunet_p0', **options}))
    assert sentence in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(depth=3), 'stages[1].depth: found 3, expected 2, as many as layers are given'),
        (dict(act='swish'), 'stages[1].act: found "swish", expected none, since layers say it'),
    ],
)
def test_layers_one_by_one_say_all(lite0, change, sentence):
    data = around(lite0).to_dict()
    data['stages'][1] |= change
    with pytest.raises(SpecError) as error:
        SearchSpace.from_dict(data)
    assert sentence in str(error.value)


def test_fused_candidates_have_the_same_kernels_and_widths(lite0):
    for position in around(lite0, fused=True, fixed_stages=[3]).positions():
        names = [one.name for one in position.candidates]
        unfused = [one for one in position.candidates if one.op == 'irb']
        fused = [one for one in position.candidates if one.op == 'fused_irb']
        if position.stage in (1, 3):  # its own ds alone, and what is to stay as it is
            assert len(names) == 1
            continue
        assert names == ['irb_k3', 'irb_k5', 'fused_irb_k3', 'fused_irb_k5']
        assert [one._replace(name='', op='') for one in fused] == [
            one._replace(name='', op='') for one in unfused
        ]
    space = around(lite0, fused=['stage2.layer2'], kernels=[])
    fused = {p.name for p in space.positions() for c in p.candidates if c.op == 'fused_irb'}
    assert fused == {'stage2.layer2'}
    assert space.contains(lite0)
    assert space.contains(changed(lite0, 2, op='fused_irb'))
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert not any('fused' in c.name for p in around(lite0).positions() for c in p.candidates)


def test_fused_layers_that_are_none_are_refused(lite0):
    with pytest.raises(SpecError, match='fused: found "stage1.layer1", expected inverted .*stage2'):
        around(lite0, fused=['stage1.layer1'])
    with pytest.raises(SpecError, match='fused: found 3, expected True, False or a list of layers'):
        around(lite0, fused=3)
