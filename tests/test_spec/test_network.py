import json
import random

import pytest

from prunet_mm.errors import PrunetError, SpecError
from prunet_mm.spec import NetworkSpec, load_zoo


def block(op, inputs, outputs, stride, kernel, hidden, stage, act='relu', se=0):
    return dict(
        op=op,
        in_channels=inputs,
        out_channels=outputs,
        kernel=kernel,
        stride=stride,
        hidden=hidden,
        act=act,
        se=se,
        stage=stage,
    )


def repeated(op, inputs, outputs, expansion, count, stage, stride=2, act='relu', se=False):
    """GPUNet's way of making a stage: equal layers, of which the first changes width and stride."""
    first = (inputs, stride)
    return [
        block(
            op,
            before,
            outputs,
            stride,
            3,
            expansion * before,
            stage,
            act,
            round(before * 0.25) if se else 0,
        )
        for before, stride in [first] + [(outputs, 1)] * (count - 1)
    ]


def test_fused_and_squeezed_blocks_count_to_the_published_parameters_of_gpunet_0():
    spec = NetworkSpec.from_dict(
        dict(
            name='gpunet_0',
            resolution=320,
            stem=[block('conv', 3, 32, 2, 3, 0, 0, 'swish')],
            layers=[
                *repeated('conv', 32, 32, 0, 2, stage=1, stride=1),
                *repeated('fused_irb', 32, 32, 5, 2, stage=2),
                *repeated('fused_irb', 32, 64, 5, 3, stage=3),
                *repeated('irb', 64, 256, 5, 3, stage=4, act='swish'),
                *repeated('irb', 256, 704, 5, 2, stage=6, se=True),
            ],
            tail=dict(channels=1280, num_classes=1000),
        )
    )
    assert spec.params() == 11_885_432


def test_stages_report_channels_and_strides():
    spec = load_zoo('prunet_p0')
    assert spec.out_channels == {1: 32, 2: 64, 3: 96, 4: 256, 5: 704, 6: 704}
    assert spec.out_strides == {1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 6: 64}
    assert spec.feature_sizes()[0] == (112, 112)
    assert spec.feature_sizes()[-1] == (4, 4)
    assert len(spec.feature_sizes()) == len(spec.stem) + len(spec.layers)


def test_blocks_carry_the_size_of_their_input():
    keys = load_zoo('prunet_p0').block_keys()
    assert [key.height for key in keys[:5]] == [224, 112, 112, 112, 56]
    assert keys[-1].op == 'tail'
    assert (keys[-1].height, keys[-1].width) == (4, 4)


def test_a_network_without_tail_ends_in_its_last_layer(edited):
    bare = NetworkSpec.from_dict(edited(['tail']))
    full = load_zoo('prunet_p0')
    assert bare.block_keys() == full.block_keys()[:-1]
    assert full.params() - bare.params() == full.block_keys()[-1].params()


def test_saved_networks_come_back_equal_and_equal_networks_give_equal_bytes(tmp_path, tiny):
    rng = random.Random(0)
    for _ in range(10):
        spec = tiny.random(rng)
        spec.save(tmp_path / 'one.json')
        again = NetworkSpec.load(tmp_path / 'one.json')
        assert again == spec
        assert hash(again) == hash(spec)
        again.save(tmp_path / 'two.json')
        assert (tmp_path / 'one.json').read_bytes() == (tmp_path / 'two.json').read_bytes()
    text = (tmp_path / 'one.json').read_text()
    assert text.startswith('{\n  "schema_version": 1,')
    assert text.endswith('}\n')


def test_provenance_is_kept_but_tuples_in_it_are_lists_as_in_json(edited, tmp_path):
    data = edited(['provenance'], dict(budget_ms=1.5, widths=(32, 64), 名=None))
    spec = NetworkSpec.from_dict(data)
    spec.save(tmp_path / 'n.json')
    assert NetworkSpec.load(tmp_path / 'n.json') == spec
    assert spec.provenance == {'budget_ms': 1.5, 'widths': [32, 64], '名': None}


def test_provenance_is_a_copy(edited):
    mine = dict(runs=[1])
    spec = NetworkSpec.from_dict(edited(['provenance'], mine))
    mine['runs'].append(2)
    assert spec.provenance == dict(runs=[1])


def test_a_failed_save_keeps_the_old_file(tmp_path):
    with pytest.raises(PrunetError, match='cannot write'):
        load_zoo('prunet_p0').save(tmp_path / 'missing' / 'n.json')


WRONG = [
    (['layers', 3, 'hidden'], 'wide', 'layers[3].hidden: found "wide", expected a positive int'),
    (['layers', 3, 'hidden'], True, 'layers[3].hidden: found True, expected a positive integer'),
    (['layers', 3, 'hidden'], 64.0, 'layers[3].hidden: found 64.0, expected a positive integer'),
    (['layers', 3, 'hidden'], -32, 'layers[3].hidden: found -32, expected a positive integer'),
    (['layers', 3, 'hidden'], 0, 'layers[3].hidden: found 0, expected a positive integer, since'),
    (['layers', 0, 'hidden'], 32, 'layers[0].hidden: found 32, expected 0, since a conv has none'),
    (['layers', 0, 'se'], 8, 'layers[0].se: found 8, expected 0, since a conv has none'),
    (['layers', 3, 'kernel'], 4, 'layers[3].kernel: found 4, expected an odd positive integer'),
    (['layers', 3, 'stride'], 3, 'layers[3].stride: found 3, expected 1 or 2'),
    (['layers', 3, 'stride'], True, 'layers[3].stride: found True, expected 1 or 2'),
    (
        ['layers', 3, 'op'],
        'dw',
        'layers[3].op: found "dw", expected "conv", "ds", "fused_irb", "irb" or "shortcut"',
    ),
    (['layers', 3, 'act'], ['relu'], 'layers[3].act: found [\'relu\'], expected "relu", "rel'),
    (['layers', 3, 'in_channels'], 65, 'layers[3].in_channels: found 65, expected 64, the chan'),
    (['stem', 0, 'in_channels'], 1, 'stem[0].in_channels: found 1, expected 3, the channels'),
    (['layers', 8, 'stage'], 1, 'layers[8].stage: found 1, expected 4 or more, since stages'),
    (['layers', 0, 'stage'], 0, 'layers[0].stage: found 0, expected 1 or more, since 0 is'),
    (['stem', 0, 'stage'], 1, 'stem[0].stage: found 1, expected 0, since it is part of the stem'),
    (['layers', 3, 'kernal'], 3, 'layers[3].kernal: unknown field, perhaps kernel is meant'),
    (['colour'], 3, 'colour: unknown field, known are schema_version, name, resolution'),
    ([5], 3, '[5]: unknown field, known are schema_version'),
    (['layers', 3], None, 'layers[3]: found None, expected a dict'),
    (['layers'], 'abc', 'layers: found "abc", expected a list'),
    (['layers'], [], 'layers: found an empty list, expected at least one entry'),
    (['tail'], 'linear', 'tail: found "linear", expected a dict'),
    (['tail', 'dropout'], float('nan'), 'tail.dropout: found nan, expected a number from 0 to'),
    (['tail', 'dropout'], 1, 'tail.dropout: found 1, expected a number from 0 to below 1'),
    (['name'], '', 'name: found "", expected a name in quotes'),
    (['resolution'], 0, 'resolution: found 0, expected a positive integer'),
    (['resolution'], 32, 'layers[13].stride: found 2 on a feature map of 1 x 1 px, expected 1'),
    (['provenance'], dict(ms=float('inf')), "provenance: found {'ms': inf}, expected a dict of"),
    (['provenance'], dict(ms={1}), "provenance: found {'ms': {1}}, expected a dict of JSON"),
    (['schema_version'], 2, 'schema_version: found 2, expected 1, the only one that this prunet'),
    (['schema_version'], '1', 'schema_version: found "1", expected 1'),
    (['schema_version'], True, 'schema_version: found True, expected 1'),
]


@pytest.mark.parametrize(('path', 'value', 'expected'), WRONG)
def test_an_error_names_file_field_value_and_what_is_allowed(edited, path, value, expected):
    with pytest.raises(SpecError) as error:
        NetworkSpec.from_dict(edited(path, value), 'subnet.json')
    assert str(error.value).startswith(f'subnet.json: {expected}')
    assert '\n' not in str(error.value)


def test_a_missing_field_is_named(edited):
    with pytest.raises(SpecError, match=r'^config: layers\[3\]\.kernel: this field is missing$'):
        NetworkSpec.from_dict(edited(['layers', 3, 'kernel']))


@pytest.mark.parametrize(
    ('count', 'more'), [(1, ''), (2, r' \(and 1 more problem\)'), (4, r' \(and 3 more problems\)')]
)
def test_of_several_problems_the_first_is_told_and_the_others_are_counted(edited, count, more):
    data = edited(['name'], 'several')
    for layer in data['layers'][:count]:
        layer['kernel'] = 2
    with pytest.raises(SpecError, match=rf'layers\[0\]\.kernel: found 2, .*{more}$') as error:
        NetworkSpec.from_dict(data)
    assert ('more' in str(error.value)) == bool(more)


@pytest.mark.parametrize('data', [3, None, 'prunet', [1]])
def test_what_is_no_dict_is_no_network(data):
    with pytest.raises(SpecError, match=r'^config: found .*, expected a dict$'):
        NetworkSpec.from_dict(data)


def test_a_newer_file_is_told_by_its_version_and_not_by_its_new_fields(edited):
    data = edited(['attention'], True)
    data['schema_version'] = 2
    with pytest.raises(SpecError, match='schema_version: found 2'):
        NetworkSpec.from_dict(data)


def test_every_truncation_of_a_file_is_one_sentence(tmp_path):
    whole = json.dumps(load_zoo('prunet_p0').to_dict())
    path = tmp_path / 'subnet.json'
    for length in range(0, len(whole), 97):
        path.write_text(whole[:length])
        with pytest.raises(SpecError, match='not JSON, or cut off') as error:
            NetworkSpec.load(path)
        assert str(error.value).startswith(f'{path}: ')
        assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'\xff\xfe\x00', 'not JSON, or cut off'),
        (b'[' * 100_000, 'not JSON, or cut off'),
        (b'[1, 2]', 'found [1, 2], expected a dict'),
        (b'{"name": "x"}', 'schema_version: this field is missing'),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, expected):
    path = tmp_path / 'other.json'
    path.write_bytes(content)
    with pytest.raises(SpecError) as error:
        NetworkSpec.load(path)
    assert str(error.value).startswith(f'{path}: {expected}')


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SpecError, match=r'cannot read .*nowhere\.json: No such file'):
        NetworkSpec.load(tmp_path / 'nowhere.json')
    with pytest.raises(SpecError, match='cannot read .*: Is a directory'):
        NetworkSpec.load(tmp_path)


def test_configs_of_mmengine_are_accepted_with_tuples_and_lists(edited):
    from mmengine import ConfigDict

    data = edited(['name'], 'prunet_p0')
    data['layers'] = tuple(data['layers'])
    spec = NetworkSpec.from_dict(ConfigDict(data))
    assert spec == load_zoo('prunet_p0')
    assert type(spec.provenance) is dict


@pytest.mark.parametrize(
    ('path', 'value', 'sentence'),
    [
        (['layers', 4, 'hidden'], 'wide', r'layers\[4\].hidden: found "wide", expected a positive'),
        (
            ['layers', 3, 'residual'],
            True,
            r'layers\[3\].residual: found True, expected False',
        ),
        (['layers', 3, 'padding'], -1, r'layers\[3\].padding: found -1, expected an integer, 0 or'),
        (['norm_eps'], 0, r'norm_eps: found 0, expected a number above 0'),
        (
            ['resolution'],
            1,
            r'stem\[0\].stride: found 2 on a feature map of 1 x 1 px, expected 1',
        ),
    ],
)
def test_a_wrong_file_names_itself_the_layer_the_field_and_what_is_allowed(
    edited, tmp_path, path, value, sentence
):
    file = tmp_path / 'mine.json'
    file.write_text(json.dumps(edited(path, value)))
    with pytest.raises(SpecError, match=rf'mine.json: {sentence}'):
        NetworkSpec.load(file)


def test_padding_that_leaves_no_pixel_says_how_much_is_needed(edited):
    data = edited(['resolution'], 4)
    data['layers'] = data['layers'][:2]
    del data['tail']
    data['layers'][0].update(kernel=5, padding=1)
    with pytest.raises(SpecError, match=r'layers\[0\].padding: found 1 with kernel 5 .*at least 2'):
        NetworkSpec.from_dict(data)
