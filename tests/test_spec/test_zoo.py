import pytest

from prunet_mm.errors import SpecError
from prunet_mm.spec import SearchSpace, load_zoo, zoo_names


def test_the_zoo_holds_both_released_networks():
    assert {'prunet_p0', 'prunet_p1'} <= set(zoo_names())


@pytest.mark.parametrize('name', zoo_names())
def test_every_network_of_the_zoo_loads_under_its_own_name(name):
    assert load_zoo(name).name == name


def test_p0_has_the_published_parameters_and_macs():
    spec = load_zoo('prunet_p0')
    assert spec.params() == 22_815_080
    assert spec.macs() == pytest.approx(1.8703e9, rel=1e-4)


def test_p1_has_the_published_macs():
    assert load_zoo('prunet_p1').macs() == pytest.approx(3.2417e9, rel=1e-4)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match=r'no network "p7" in the zoo, .*prunet_p0, prunet_p1'):
        load_zoo('p7')


def v100():
    # Published are the widths 32, 32, 64, 96, 256, 704 with up to 2, 3, 3, 3, 4, 1 layers in stages
    # 1-6. The networks' own layers show that these are the stages' *input* widths: what a stage
    # puts out is the next one's entry, and the last keeps its 704.
    inputs = [32, 32, 64, 96, 256, 704]
    outputs = [*inputs[1:], 704]
    depths = [2, 3, 3, 3, 4, 1]
    ops = [dict(ops=['conv']), dict(first_ops=['conv']), {}, {}, {}, {}]
    stages = [
        dict(width=width, stride=1 if index == 0 else 2, depth=depth, **op)
        for index, (width, depth, op) in enumerate(zip(outputs, depths, ops, strict=True))
    ]
    return dict(
        name='v100',
        resolution=224,
        stem=dict(out_channels=32, kernel=3, stride=2, act='relu'),
        stages=stages,
        tail=dict(channels=1984, dropout=0.2, num_classes=1000),
    )


@pytest.mark.parametrize('name', ['prunet_p0', 'prunet_p1'])
def test_the_v100_space_contains_both_released_networks(name):
    space = SearchSpace.from_dict(v100())
    assert space.why_not(load_zoo(name)) is None
    assert space.contains(load_zoo(name))
    assert space.smallest().macs() < load_zoo(name).macs() < space.largest().macs()


@pytest.mark.parametrize('narrower', [dict(max_expansion=7), dict(granularity=64)])
def test_a_narrower_v100_space_loses_a_released_network(narrower):
    data = v100()
    data['stages'] = [{**stage, **narrower} for stage in data['stages']]
    space = SearchSpace.from_dict(data)
    assert not all(space.contains(load_zoo(name)) for name in ('prunet_p0', 'prunet_p1'))
