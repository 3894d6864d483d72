import pytest

from prunet_mm.errors import SpecError
from prunet_mm.spec import NetworkSpec, SearchSpace, load_zoo, zoo_names

# parameters where NVIDIA's own code was counted, GMACs, resolution, strides of the stages
PUBLISHED = {
    'prunet_p0': (22_815_080, 1.8703, 224, {1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 6: 64}),
    'prunet_p1': (None, 3.2417, 224, {1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 6: 64}),
    'gpunet_0': (11_885_432, 3.2542, 320, {1: 2, 2: 4, 3: 8, 4: 16, 6: 32}),
    'gpunet_1': (12_704_192, 3.3084, 288, {1: 2, 2: 4, 3: 8, 4: 16, 5: 16, 6: 32}),
    'gpunet_2': (None, 8.3863, 384, {1: 2, 2: 4, 3: 8, 4: 16, 5: 16, 6: 32, 7: 32}),
    'gpunet_d1': (None, 4.2896, 456, {1: 4, 2: 8, 3: 16, 4: 32}),
    'gpunet_d2': (None, 15.7395, 528, {1: 4, 2: 8, 3: 16, 4: 32}),
}


def test_the_zoo_is_the_released_networks():
    assert set(zoo_names()) == set(PUBLISHED)


@pytest.mark.parametrize('name', zoo_names())
def test_parameters_macs_resolution_and_strides_are_the_published_ones(name):
    params, gmacs, resolution, strides = PUBLISHED[name]
    spec = load_zoo(name)
    assert spec.name == name
    assert params is None or spec.params() == params
    assert spec.macs() == pytest.approx(gmacs * 1e9, rel=1e-4)
    assert spec.resolution == resolution
    assert spec.out_strides == strides


@pytest.mark.parametrize('name', zoo_names())
def test_a_network_of_the_zoo_survives_its_file(name, tmp_path):
    spec = load_zoo(name)
    spec.save(tmp_path / 'network.json')
    assert NetworkSpec.load(tmp_path / 'network.json') == spec


def test_fused_blocks_of_stride_2_pad_by_nothing():
    sizes = [height for height, _ in load_zoo('gpunet_0').feature_sizes()]
    assert list(dict.fromkeys(sizes)) == [160, 79, 39, 20, 10]


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
