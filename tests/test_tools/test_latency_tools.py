import json
import runpy
import sys

import pytest

from prunet_mm.latency import LatencyTable
from prunet_mm.spec import SearchSpace

SPACE = dict(
    name='tiny',
    resolution=4,
    in_channels=1,
    stem=dict(out_channels=4, stride=1),
    stages=[dict(width=4, stride=2, depth=1, kernels=[3], granularity=8)],
    tail=dict(num_classes=2),
)


@pytest.fixture
def config(tmp_path):
    """Write a config of these top-level settings; returns its path."""

    def write(**settings):
        path = tmp_path / 'config.py'
        path.write_text(''.join(f'{name} = {value!r}\n' for name, value in settings.items()))
        return path

    return write


@pytest.fixture
def tool(root, monkeypatch, capsys):
    """Run a tool as a command line, in this process; returns exit code, stdout and stderr."""

    def run(name, *args):
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, args)])
        try:
            runpy.run_path(str(root / 'tools' / f'{name}.py'), run_name='__main__')
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def table_path(tool, config, tmp_path):
    path = tmp_path / 'tables/tiny.json'
    latency = dict(table=str(path), batch=2, max_seconds=0.1)
    code, _, err = tool('build_latency_table', config(space=SPACE, latency=latency), '--validate=4')
    assert code == 0, err
    return path


@pytest.fixture
def subnet_path(tmp_path):
    path = tmp_path / 'subnet.json'
    SearchSpace.from_dict(SPACE).largest().save(path)
    return path


def test_from_a_config_to_predicted_beside_measured(run_python, config, tmp_path, subnet_path):
    table, result = tmp_path / 'out/table.json', tmp_path / 'result.json'
    done = run_python(
        *('tools/build_latency_table.py', config(space=SPACE), '--out', table),
        *('--batch', 2, '--max-seconds', 0.1, '--validate', 4),
    )
    assert done.returncode == 0, done.stderr
    for words in ('device  ', 'software  ', 'batch 2, 1 CPU thread', 'shuffled rounds', 'bias'):
        assert words in done.stdout
    assert f'wrote {table}' in done.stdout

    done = run_python(
        *('tools/benchmark_latency.py', subnet_path, '--table', table),
        *('--json', result, '--max-seconds', 0.1),
    )
    assert done.returncode == 0, done.stderr
    assert 'measured table [ms]' in done.stdout
    (record,) = json.loads(result.read_text())
    spec = SearchSpace.from_dict(SPACE).largest()
    assert (record['target'], record['batch'], record['threads']) == (spec.name, 2, 1)
    assert (record['params'], record['macs']) == (spec.params(), spec.macs())
    assert record['predicted_ms'] == LatencyTable.load(table).predict_ms(spec)
    assert record['latency_ms'] > 0


def test_the_smallest_networks_of_the_zoo_are_timed_by_default(root, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['benchmark_latency.py'])
    names = runpy.run_path(str(root / 'tools/benchmark_latency.py'))
    loaded = [names['load_target'](target).name for target in names['DEFAULT_TARGETS']]
    assert loaded == names['DEFAULT_TARGETS']


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (['resnet'], 'no network "resnet" in the zoo'),
        (['none.json'], 'cannot read the network none.json'),
        (['SUBNET', '--table', 'none.json'], 'there is no latency table none.json; measure one'),
        (['SUBNET', '--table', 'TABLE', '--batch', '3'], 'is for batch 2 and 1 CPU threads, so'),
        (['prunet_p0', '--table', 'TABLE'], 'has no latency for conv 3->32'),
        (['SUBNET', '--device', 'cuda:99'], 'device cuda:99 was asked for'),
        (['SUBNET', '--device', 'tpu'], 'unknown device "tpu"'),
    ],
)
def test_bad_input_to_the_benchmark_is_one_sentence(
    tool, table_path, subnet_path, monkeypatch, tmp_path, args, sentence
):
    monkeypatch.chdir(tmp_path)
    paths = dict(SUBNET=subnet_path, TABLE=table_path)
    code, _, err = tool('benchmark_latency', *(paths.get(arg, arg) for arg in args))
    assert code == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_a_table_cut_off_is_refused(tool, table_path, subnet_path):
    table_path.write_text(table_path.read_text()[:-20])
    code, _, err = tool('benchmark_latency', subnet_path, '--table', table_path)
    assert code == 2
    assert 'is cut off or not JSON' in err


@pytest.mark.parametrize('name', ['build_latency_table', 'benchmark_latency'])
def test_help_imports_no_torch(run_python, name):
    code = (
        'import runpy, sys\n'
        f'sys.argv = ["{name}.py", "--help"]\n'
        'try:\n'
        f'    runpy.run_path("tools/{name}.py", run_name="__main__")\n'
        'finally:\n'
        '    print("torch" in sys.modules, "mmengine" in sys.modules)\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('False False\n')
