import re

from prunet_mm.spec import load_zoo


def test_rows_name_every_block_and_add_up_to_the_network():
    spec = load_zoo('prunet_p1')
    rows = spec.rows()
    assert [row.name for row in rows[:5]] == [
        'stem',
        'stage1.layer1',
        'stage1.layer2',
        'stage2.layer1',
        'stage2.layer2',
    ]
    assert rows[-1].name == 'tail'
    assert sum(row.params for row in rows) == spec.params()
    assert sum(row.macs for row in rows) == spec.macs()
    assert (rows[3].key.height, rows[3].height) == (112, 56)


def test_the_table_has_a_line_per_block_with_its_figures():
    spec = load_zoo('prunet_p0')
    title, head, *lines = spec.describe().splitlines()
    assert title == 'prunet_p0: 224 x 224 px, 22,815,080 parameters, 1,870,345,792 MACs'
    assert len(lines) == len(spec.block_keys())
    assert len({len(line) for line in [head, *lines]}) == 1
    cells = re.split(r'  +', lines[4])
    assert cells == [
        'stage3.layer1',
        'irb',
        '3',
        '2',
        '64 -> 96',
        '512',
        'relu',
        '28 x 28',
        '88,768',
        '144,908,288',
    ]


def test_squeeze_and_excitation_shows(tiny):
    assert 'irb + se 2' in tiny.largest().describe()
