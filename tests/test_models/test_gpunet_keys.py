import json
import random
import re

import pytest
import torch
from mmpretrain.registry import MODELS

from prunet_mm.errors import CheckpointError
from prunet_mm.models.gpunet_keys import from_nvidia, from_ours, slots
from prunet_mm.spec import load_zoo, zoo_names

every_network = pytest.mark.parametrize('name', zoo_names())


def nvidia(name):
    return {slot.nvidia: slot.shape for slot in slots(load_zoo(name))}


def ours(name):
    return {slot.ours: slot.shape for slot in slots(load_zoo(name))}


def refusal(recognise, shapes):
    with pytest.raises(CheckpointError) as caught:
        recognise(shapes, 'a.pth')
    sentence = str(caught.value)
    assert sentence.startswith('a.pth: none of gpunet_0, ')
    assert '\n' not in sentence
    return sentence.partition('; ')[2]


@pytest.mark.parametrize('name', ['prunet_p0', 'gpunet_0', 'gpunet_1'])
def test_nvidias_names_and_shapes_in_order(name, root):
    golden = json.loads((root / f'tests/data/gpunet/{name}.json').read_text())
    assert [(key, list(shape)) for key, shape in nvidia(name).items()] == list(
        golden['keys'].items()
    )


@every_network
def test_our_names_and_shapes_are_the_classifiers_in_order(name):
    spec = load_zoo(name)
    tail = spec.tail.model_dump(exclude={'num_classes'})
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='PRUNet', arch=name),
                neck=dict(type='PRUNetTail', in_channels=spec.layers[-1].out_channels, **tail),
                head=dict(
                    type='LinearClsHead',
                    num_classes=spec.tail.num_classes,
                    in_channels=spec.tail.features or spec.tail.channels,
                ),
            )
        )
    found = [(key, tuple(value.shape)) for key, value in model.state_dict().items()]
    assert found == list(ours(name).items())


@every_network
def test_each_network_is_told_from_all_others_by_names_and_by_order(name):
    shapes = nvidia(name)
    assert from_nvidia(shapes, '').spec.name == name
    assert from_ours(ours(name), '').spec.name == name
    unnamed = {
        f'network.{i}.{key.rpartition(".")[2]}': s for i, (key, s) in enumerate(shapes.items())
    }
    match = from_nvidia(unnamed, '')
    assert match.spec.name == name
    assert match.keys == list(unnamed)
    assert [slot.nvidia for slot in match.slots] == list(shapes)


@every_network
def test_known_names_decide_in_any_order(name):
    for recognise, shapes in ((from_nvidia, nvidia(name)), (from_ours, ours(name))):
        shuffled = list(shapes.items())
        random.Random(0).shuffle(shuffled)
        match = recognise(dict(shuffled), '')
        assert match.spec.name == name
        assert match.keys == list(shapes)


@pytest.mark.parametrize('name', ['gpunet_d1', 'gpunet_d2'])
def test_heads_and_tails_whose_names_are_not_known_are_found_by_order(name):
    def other(key):
        return re.sub(r'net\.(\d+)', lambda number: f'net.{2 * int(number[1])}.conv', key)

    renamed = {other(key): shape for key, shape in nvidia(name).items()}
    assert renamed != nvidia(name)
    match = from_nvidia(renamed, '')
    assert match.keys == list(renamed)
    features = [
        k for k, slot in zip(match.keys, match.slots, strict=True) if 'features' in slot.ours
    ]
    assert len(features) == 1
    assert renamed[features[0]] == (1984, 1152, 1, 1)


def test_one_wrong_shape_is_named():
    shapes = nvidia('gpunet_1')
    key = 'network.stage: 5 layer10.conv_dw.weight'
    assert refusal(from_nvidia, shapes | {key: [1440, 1, 5, 5]}) == (
        f'the nearest is gpunet_1, but {key!r} has shape [1440, 1, 5, 5] instead of [1440, 1, 3, 3]'
    )
    key = 'head.fc.weight'
    assert refusal(from_ours, ours('prunet_p1') | {key: [10, 1984]}) == (
        f'the nearest is prunet_p1, but {key!r} has shape [10, 1984] instead of [1000, 1984]'
    )


@pytest.mark.parametrize('layout', ['nvidia', 'ours'])
def test_one_missing_or_additional_tensor_is_named(layout):
    recognise, shapes = dict(
        nvidia=(from_nvidia, nvidia('prunet_p0')), ours=(from_ours, ours('prunet_p0'))
    )[layout]
    for key, shape in list(shapes.items())[::17]:
        rest = {other: shape for other, shape in shapes.items() if other != key}
        assert refusal(recognise, rest) == (
            f'the nearest is prunet_p0, but {key!r} of shape {list(shape)} is missing'
        )
    sentence = refusal(recognise, shapes | dict(extra=(7,)))
    assert sentence == "the nearest is prunet_p0, but 'extra' of shape [7] is no part of that"


def test_networks_of_others_are_refused():
    resnet = {'conv1.weight': (64, 3, 7, 7), 'bn1.weight': (64,), 'fc.weight': (1000, 512)}
    assert "it has 'conv1.weight' of shape [64, 3, 7, 7] in place of" in refusal(
        from_nvidia, resnet
    )
    assert 'is missing' in refusal(from_nvidia, {})
    # The right shapes under names of another layout are not enough.
    for recognise, shapes in ((from_nvidia, ours('gpunet_0')), (from_ours, nvidia('gpunet_0'))):
        assert 'in place of' in refusal(recognise, shapes)
