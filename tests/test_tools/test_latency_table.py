from functools import partial

import pytest

from prunet_mm.latency import LatencyTable, Validation
from prunet_mm.spec import BlockKey

IRB = BlockKey('irb', 4, 4, 8, 3, 1, 'relu', 0, 8, 8)
CONV = IRB._replace(op='conv', hidden=0)
TAIL = IRB._replace(op='tail', hidden=0, out_channels=10)


@pytest.fixture
def table_file(tmp_path):
    """Write a table of these blocks and their latencies; returns its path."""

    def write(name, entries, samples=12, **fields):
        path = tmp_path / f'{name}.json'
        head = dict(
            schema_version=1,
            kind='measured',
            device='a device',
            backend='eager',
            dtype='float32',
            batch=64,
            threads=1,
            software=dict(torch='2'),
            date='2026-01-31',
            protocol=dict(rounds=3, drift=dict(least=0.98)),
        )
        rows = [
            dict(key._asdict(), latency_ms=ms, iqr_ms=ms / 50, samples=samples)
            for key, ms in entries.items()
        ]
        LatencyTable.from_dict(head | dict(entries=rows) | fields).save(path)
        return path

    return write


@pytest.fixture
def tool(run_tool):
    return partial(run_tool, 'latency_table')


def test_shows_provenance_validation_and_what_was_measured(tool, table_file):
    widths = {IRB._replace(hidden=width): width / 8 for width in (8, 16, 32, 40, 56, 64, 80)}
    validation = Validation(fitted_on=3, predicted_ms=(1.1, 2.0), measured_ms=(1.0, 2.0))
    path = table_file('a', {CONV: 0.5, **widths}, validation=validation.to_dict())
    code, out, _ = tool('show', path)
    assert code == 0
    for line in (
        'measured on a device: eager, float32, batch 64, 1 thread, 2026-01-31',
        'software torch 2',
        'protocol rounds 3, drift least 0.98',
        'mean absolute error 5.0%, bias +5.0%, worst +10.0%, Kendall tau 1.000; fitted on 3 other',
        'irb 7 1 - 10 2.0% 12 - 12',
        'irb 4->4 k3 s1 relu on 8 x 8 px 8 - 80 7 of 10 24-72 step 24',
    ):
        assert line in ' '.join(out.split()), out


def test_an_estimate_is_never_called_measured(tool, table_file):
    path = table_file('a', {IRB: 1.0, IRB._replace(hidden=16): 2.0}, samples=0, kind='estimated')
    _, out, _ = tool('show', path)
    assert 'estimated on a device' in out
    assert 'irb 2 1 - 2 - -' in ' '.join(out.split())  # neither spread nor samples
    assert 'measured' not in out


def test_a_table_of_the_ends_alone_is_interpolated_in_between(tool, table_file):
    path = table_file('a', {IRB: 1.0, IRB._replace(hidden=64): 2.0})
    _, out, _ = tool('show', path)
    assert '8 - 64 2 of 8 16-56 step 8' in ' '.join(out.split())


def test_a_merged_table_shows_what_it_is_of(tool, table_file, tmp_path):
    parts = table_file('a', {IRB: 1.0}), table_file('b', {CONV: 2.0, IRB: 1.1}, software={})
    code, out, _ = tool('merge', *parts, '--out', tmp_path / 'new/both.json')
    assert code == 0
    assert '2 blocks of 3; measured on a device' in out
    table = LatencyTable.load(tmp_path / 'new/both.json')
    assert (table.block_ms(IRB), table.block_ms(CONV)) == (1.0, 2.0)
    _, out, _ = tool('show', tmp_path / 'new/both.json')
    assert out.count('date 2026-01-31') == 2


def test_merging_says_that_a_fit_is_left_out(tool, table_file, tmp_path):
    parts = [
        table_file(
            name,
            {IRB: 1.0},
            network_scale=scale,
            validation=dict(fitted_on=1, predicted_ms=[scale], measured_ms=[1.0]),
        )
        for name, scale in (('a', 1.0), ('b', 1.1))
    ]
    _, out, _ = tool('merge', *parts, '--out', tmp_path / 'c.json')
    assert 'overhead, scale and validation are left out' in out


def test_difference_is_of_what_both_have(tool, table_file):
    old = table_file('old', {CONV: 1.0, IRB: 2.0, IRB._replace(hidden=16): 4.0, TAIL: 1.0})
    new = table_file('new', {CONV: 1.1, IRB: 2.0, IRB._replace(hidden=16): 6.0}, batch=8)
    code, out, _ = tool('diff', old, new)
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows['conv'] == ['1', '1.100', '1.100', '-', '1.100', '1.100', '1.100']
    assert rows['all'] == ['3', '1.100', '1.050', '-', '1.300', '1.000', '1.500']
    assert 'old.json, measured on a device: eager, float32, batch 64, 1 thread' in out
    assert 'batch 8, 1 thread, 2026-01-31; 0 blocks only here' in out
    assert 'most: irb 4->4 hidden 16 k3 s1 relu on 8 x 8 px, 4 -> 6 ms' in out


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (['show', 'none.json'], 'there is no latency table none.json; measure one'),
        (['show', 'CUT'], 'is cut off or not JSON'),
        (['diff', 'A', 'TAIL'], 'have no block in common'),
        (['merge', 'A', 'B', '--out', 'c.json'], 'kind is measured in one and estimated in the'),
        (['merge', 'A', 'A', '--out', 'c.txt'], 'the file is written as .json, so name it so'),
    ],
)
def test_bad_input_is_one_sentence(tool, table_file, tmp_path, monkeypatch, args, sentence):
    monkeypatch.chdir(tmp_path)
    paths = dict(
        A=table_file('a', {IRB: 1.0}),
        B=table_file('b', {IRB: 1.0}, kind='estimated'),
        TAIL=table_file('tail', {TAIL: 1.0}),
        CUT=tmp_path / 'cut.json',
    )
    paths['CUT'].write_text(paths['A'].read_text()[:-10])
    code, _, err = tool(*(paths.get(arg, arg) for arg in args))
    assert code == 2
    assert sentence in err
    assert err.startswith('error: ') and err.count('\n') == 1
    assert not (tmp_path / 'c.json').exists()


@pytest.mark.parametrize('help', [True, False])
def test_no_torch_is_imported(run_python, table_file, help):
    args = ['--help'] if help else ['show', str(table_file('a', {IRB: 1.0}))]
    code = (
        'import runpy, sys\n'
        f'sys.argv = ["latency_table.py", *{args}]\n'
        'try:\n'
        '    runpy.run_path("tools/latency_table.py", run_name="__main__")\n'
        'finally:\n'
        '    print("torch" in sys.modules, "mmengine" in sys.modules)\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('False False\n')
