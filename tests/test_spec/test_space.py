import itertools
import random

import pytest

from prunet_mm.errors import SpecError
from prunet_mm.spec import SearchSpace, load_zoo


def everything(space):
    """Every network of a space, found by leaving out and choosing in every way there is."""
    options = [
        [(position, one, hidden) for one in position.candidates for hidden in one.widths or (0,)]
        + ([None] if position.skippable else [])
        for position in space.positions()
    ]
    return {
        space.network([choice for choice in choices if choice], 'x')
        for choices in itertools.product(*options)
    }


def stage(**changes):
    return {**dict(width=8, stride=2, depth=2, max_expansion=2, granularity=4), **changes}


def space_dict(*stages, **changes):
    return {**dict(name='s', resolution=8, stem=dict(out_channels=8), stages=stages), **changes}


LISTED = [
    dict(op='shortcut', kernel=1),
    dict(op='irb', kernel=3),
    dict(op='irb', kernel=5, expansions=[0.5, 2, 3.5]),
    dict(op='fused_irb', kernel=3, expansions=[1.5]),
]


def random_space(rng):
    def random_stage():
        ops = ['conv', 'fused_irb', 'irb', 'shortcut']
        return dict(
            width=rng.choice([8, 16]),
            stride=rng.choice([1, 2]),
            depth=rng.randint(1, 3),
            **rng.choice(
                [
                    dict(
                        ops=rng.sample(ops, rng.randint(1, 3)),
                        first_ops=rng.choice([None, rng.sample(ops, 1)]),
                        kernels=rng.choice([[3], [3, 5], [1, 7]]),
                    ),
                    dict(
                        candidates=rng.sample(LISTED, rng.randint(1, 3)),
                        first_candidates=rng.choice([None, rng.sample(LISTED, 2)]),
                    ),
                ]
            ),
            act=rng.choice(['relu', 'swish']),
            se=rng.random() < 0.5,
            max_expansion=rng.randint(1, 4),
            granularity=rng.choice([2, 4, 8]),
        )

    return SearchSpace.from_dict(
        dict(
            name='random',
            resolution=rng.randint(16, 40),
            in_channels=rng.choice([1, 3]),
            stem=dict(out_channels=8, kernel=rng.choice([1, 3]), stride=rng.choice([1, 2])),
            stages=[random_stage() for _ in range(rng.randint(1, 3))],
            tail=rng.choice([None, dict(num_classes=10), dict(channels=32, num_classes=10)]),
        )
    )


def test_size_counts_each_different_network_once(tiny):
    assert tiny.size() == len(everything(tiny))


def test_smallest_and_largest_are_those_of_fewest_and_most_macs(tiny):
    macs = [spec.macs() for spec in everything(tiny)]
    assert tiny.smallest().macs() == min(macs)
    assert tiny.largest().macs() == max(macs)


def test_smallest_and_largest_can_be_those_of_any_cost(tiny):
    def cost(key):
        """More for what has fewer MACs: a latency need not follow them."""
        return 1e6 / key.macs() + 1

    costs = [sum(map(cost, spec.block_keys())) for spec in everything(tiny)]
    for network, end in ((tiny.smallest(cost), min), (tiny.largest(cost), max)):
        assert sum(map(cost, network.block_keys())) == pytest.approx(end(costs))


def test_random_reaches_every_network(tiny):
    left = {spec.layers for spec in everything(tiny)}
    rng = random.Random(0)
    for _ in range(100 * tiny.size()):
        left.discard(tiny.random(rng).layers)
        if not left:
            return
    pytest.fail(f'{len(left)} networks never came')


def test_random_depends_on_its_generator_alone(tiny):
    draw = [[tiny.random(rng) for _ in range(5)] for rng in (random.Random(1), random.Random(1))]
    assert draw[0] == draw[1]


def test_what_holds_for_any_network_of_any_space():
    rng = random.Random(0)
    for _ in range(60):
        space = random_space(rng)
        assert SearchSpace.from_dict(space.to_dict()) == space
        keys = space.block_keys()
        assert len(keys) == len(set(keys))
        smallest, largest = space.smallest(), space.largest()
        for _ in range(5):
            spec = space.random(rng)
            assert space.contains(spec)
            assert smallest.macs() <= spec.macs() <= largest.macs()
            assert set(spec.block_keys()) <= set(keys)


def test_block_keys_are_exactly_those_of_the_networks_stem_first_and_tail_last(tiny):
    keys = tiny.block_keys()
    assert set(keys) == {key for spec in everything(tiny) for key in spec.block_keys()}
    assert len(keys) == len(set(keys))
    assert keys[0] == tiny.smallest().block_keys()[0]
    assert keys[-1].op == 'tail'


def test_choices_without_a_first_layer_or_out_of_order_make_no_network(tiny):
    choices = [
        (one, one.candidates[-1], max(one.candidates[-1].widths or (0,)))
        for one in tiny.positions()
    ]
    assert tiny.network(choices).layers == tiny.network(list(choices)).layers
    assert tiny.network(choices, provenance=dict(budget_ms=1.0)).provenance == {'budget_ms': 1.0}
    for wrong in (choices[2:], choices[:-1], choices[::-1], choices[:2] + choices, []):
        with pytest.raises(SpecError):
            tiny.network(wrong)


def change(spec, index, **changes):
    layers = list(spec.layers)
    layers[index] = layers[index].model_copy(update=changes)
    return spec.model_copy(update=dict(layers=tuple(layers)))


def test_a_network_outside_is_told_why(tiny):
    spec = tiny.largest()
    last = len(spec.layers) - 1
    inner = next(i for i, layer in enumerate(spec.layers) if layer.has_residual)
    outside = {
        'resolution: found 16, expected 8': spec.model_copy(update=dict(resolution=16)),
        'tail: found None, expected TailSpec(': spec.model_copy(update=dict(tail=None)),
        'stem: found (LayerSpec(': spec.model_copy(update=dict(stem=spec.stem * 2)),
        f'layers[{last}].hidden: found 6, expected 4 to 16 in steps of 4': change(
            spec, last, hidden=6
        ),
        f'layers[{last}].kernel: found 7, expected 3 or 5': change(spec, last, kernel=7),
        f'layers[{last}].op: found "fused_irb", expected "irb"': change(spec, last, op='fused_irb'),
        f'layers[{last}].act: found "relu", expected "swish"': change(spec, last, act='relu'),
        f'layers[{last}].se: found 2, expected 0': change(spec, last, se=2),
        f'layers[{last}].stride: found 1, expected 2': change(spec, last, stride=1),
        f'layers[{last}].padding: found 0, expected None': change(spec, last, padding=0),
        f'layers[{inner}].residual: found False, expected None': change(
            spec, inner, residual=False
        ),
        'stage 3: found 0 layers, expected 1': change(spec, last, stage=9),
        'stage 4: found 1 layers, expected none': spec.model_copy(
            update=dict(layers=(*spec.layers, spec.layers[-1].model_copy(update=dict(stage=4))))
        ),
        'stage 1: found 3 layers, expected 1 to 2': spec.model_copy(
            update=dict(layers=(spec.layers[0], *spec.layers))
        ),
    }
    for reason, other in outside.items():
        assert tiny.why_not(other).startswith(reason)
        assert not tiny.contains(other)
    assert not tiny.contains(load_zoo('prunet_p0'))


def test_what_the_rule_says_anyway_may_be_written_out(tiny):
    spec = tiny.largest()
    last = len(spec.layers) - 1
    assert tiny.contains(change(spec, last, padding=spec.layers[last].kernel // 2, residual=False))


def test_name_and_provenance_do_not_matter(tiny):
    spec = tiny.smallest().model_copy(update=dict(name='other', provenance=dict(a=1)))
    assert tiny.contains(spec)


WRONG = [
    (stage(depth=0), 'stages[1].depth: found 0, expected a positive integer'),
    (stage(width=0), 'stages[1].width: found 0, expected a positive integer'),
    (stage(width='8'), 'stages[1].width: found "8", expected a positive integer'),
    (stage(ops=[]), 'stages[1].ops: found an empty list, expected at least one entry'),
    (stage(first_ops=()), 'stages[1].first_ops: found an empty list, expected at least one'),
    (stage(kernels=[]), 'stages[1].kernels: found an empty list, expected at least one entry'),
    (stage(kernels=[3, 4]), 'stages[1].kernels[1]: found 4, expected an odd positive integer'),
    (stage(kernels=[3, 3]), 'stages[1].kernels[1]: found 3 twice, expected distinct values'),
    (stage(ops='irb'), 'stages[1].ops: found "irb", expected a list'),
    # Its order would differ from process to process, and with it that of the candidates.
    (stage(ops={'irb'}), "stages[1].ops: found {'irb'}, expected a list"),
    (
        stage(ops=['mbconv']),
        'stages[1].ops[0]: found "mbconv", expected "conv", "ds", "fused_irb", "irb" or',
    ),
    (stage(se=1), 'stages[1].se: found 1, expected True or False'),
    (stage(stride=4), 'stages[1].stride: found 4, expected 1 or 2'),
    (stage(granularty=4), 'stages[1].granularty: unknown field, perhaps granularity is meant'),
    (
        stage(granularity=32),
        'stages[1].max_expansion: found 2, which makes the largest hidden width 2 x 8 = 16, '
        'expected at least the granularity, 32',
    ),
    (
        stage(granularity=12),
        'stages[1].max_expansion: found 2, which makes the largest hidden width 2 x 8 = 16, '
        'expected a multiple of the granularity, 12',
    ),
    # The first layer, from 8 channels, is on the grid; the second, from 10, is not.
    (stage(width=10, granularity=8), 'stages[1].max_expansion: found 2, which makes the larg'),
]


@pytest.mark.parametrize(('second', 'expected'), WRONG)
def test_an_error_names_the_stage_the_field_and_what_is_allowed(second, expected):
    with pytest.raises(SpecError) as error:
        SearchSpace.from_dict(space_dict(stage(), second), 'space.py')
    assert str(error.value).startswith(f'space.py: {expected}')
    assert 'more problem' not in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(stages=[]), 'config: stages: found an empty list'),
        (dict(stem=dict(width=8)), 'config: stem.width: unknown field, known are out_channels'),
        (dict(resolution=1), 'config: stem.stride: found 2 on a feature map of 1 x 1 px'),
        (dict(resolution=4), 'config: stages[1].stride: found 2 on a feature map of 1 x 1 px'),
        (dict(tail=dict()), 'config: tail.num_classes: this field is missing'),
    ],
)
def test_an_error_outside_the_stages_is_named_too(changes, expected):
    with pytest.raises(SpecError) as error:
        SearchSpace.from_dict(space_dict(stage(), stage(), **changes))
    assert str(error.value).startswith(expected)


def test_granularity_does_not_matter_where_all_layers_are_convs():
    fits = stage(ops=['conv'], granularity=999)
    assert SearchSpace.from_dict(space_dict(fits)).size() == 2 + 4
    first_only = stage(first_ops=['conv'], depth=1, granularity=999)
    assert SearchSpace.from_dict(space_dict(first_only)).size() == 2


def test_configs_of_mmengine_are_accepted(tmp_path):
    from mmengine import Config

    file = tmp_path / 'space.py'
    file.write_text(f'space = {space_dict(stage(), stage(ops=("conv", "irb")))!r}')
    config = Config.fromfile(file).space
    assert SearchSpace.from_dict(config).stages[1].ops == ('conv', 'irb')


def test_a_space_can_be_a_key(tiny):
    assert hash(SearchSpace.from_dict(tiny.to_dict())) == hash(tiny)
