import json
import os
import subprocess
import sys
import time
from functools import partial

import pytest

from prunet_mm.engine.cli import load_config
from prunet_mm.latency import LatencyTable
from prunet_mm.spec import SearchSpace
from prunet_mm.timing.engine import CpuStopwatch

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
def tool(run_tool):
    return partial(run_tool, 'build_latency_table')


def test_from_a_config_to_a_table_that_predicts(run_python, config, tmp_path):
    path = tmp_path / 'out/table.json'
    done = run_python(
        *('tools/build_latency_table.py', config(space=SPACE), '--out', path),
        *('--batch', 2, '--max-seconds', 0.1, '--validate', 4),
    )
    assert done.returncode == 0, done.stderr
    for words in (
        *('device  ', 'software  ', 'eager, float32, batch 2, 1 CPU thread', 'shuffled rounds'),
        *('divided out; of irb 4->4', 'mean absolute error', 'bias', 'worst', 'Kendall tau'),
        *('fitted on 2 networks', f'wrote {path}', f'wrote {path.with_suffix(".png")}'),
    ):
        assert words in done.stdout
    table = LatencyTable.load(path)
    space = SearchSpace.from_dict(SPACE)
    table.require(space.block_keys())
    assert len(table.validation.measured_ms) == 2
    assert table.predict_ms(space.largest()) > 0
    assert path.with_suffix('.png').read_bytes().startswith(b'\x89PNG')
    space.largest().save(tmp_path / 'subnet.json')
    done = run_python(
        *('tools/predict_latency.py', tmp_path / 'subnet.json', '--table', path, '--json')
    )
    (record,) = json.loads(done.stdout)
    assert (record['kind'], record['batch'], record['device']) == ('measured', 2, table.device)
    assert record['latency_ms'] == pytest.approx(table.predict_ms(space.largest()), abs=1e-4)
    assert {file.name for file in path.parent.iterdir()} == {'table.json', 'table.png'}


def test_settings_of_the_command_line_replace_the_configs(tool, config, tmp_path):
    latency = dict(table=str(tmp_path / 'table.json'), batch=2, max_seconds=0.1)
    code, _, err = tool(
        config(space=SPACE, model=dict(latency=latency | dict(backend='torchscript'))),
        *('--batch', 3, '--validate', 0),
    )
    assert code == 0, err
    table = LatencyTable.load(tmp_path / 'table.json')
    assert (table.batch, table.backend) == (3, 'torchscript')
    assert [entry.hidden for entry in table.entries if entry.op == 'irb'] == [8, 16, 24, 32]


def test_a_run_killed_at_once_goes_on_and_leaves_nothing_behind(root, tool, config, tmp_path):
    out, journal = tmp_path / 'table.json', tmp_path / 'table.json.journal'
    command = [root / 'tools/build_latency_table.py', config(space=SPACE), '--out', out]
    endless = ['--max-seconds', '3000', '--precision', '0.01']
    with subprocess.Popen([sys.executable, *command, *endless], stdout=subprocess.DEVNULL) as run:
        try:
            patience = time.monotonic() + 300
            while not journal.exists() or journal.read_bytes().count(b'\n') < 20:
                assert run.poll() is None
                assert time.monotonic() < patience
                time.sleep(0.05)
        finally:
            run.kill()
    assert not out.exists()
    code, text, err = tool(tmp_path / 'config.py', '--out', out, '--max-seconds', 0.1)
    assert code == 0, err
    assert f'going on  with what an interrupted run has measured: {journal}' in text
    table = LatencyTable.load(out)
    assert table.protocol['sessions'] == 2
    assert not journal.exists()


def test_ctrl_c_keeps_what_was_measured(tool, config, tmp_path, monkeypatch):
    out, journal = tmp_path / 'table.json', tmp_path / 'table.json.journal'
    timed, laps_ms = [], CpuStopwatch.laps_ms

    def until_ctrl_c(self, steps, x):
        timed.append(steps)
        if len(timed) > 100:
            raise KeyboardInterrupt
        return laps_ms(self, steps, x)

    monkeypatch.setattr(CpuStopwatch, 'laps_ms', until_ctrl_c)
    code, _, err = tool(config(space=SPACE), '--out', out)
    assert code == 130
    assert f'interrupted: {out} was not written; what was measured is in {journal}' in err
    assert err.count('\n') == 1
    assert not out.exists()
    assert journal.read_bytes().count(b'\n') > 5


def test_an_interrupted_run_of_something_else_is_refused(tool, config, tmp_path):
    out = tmp_path / 'table.json'
    journal = tmp_path / 'table.json.journal'
    journal.write_text(json.dumps(dict(batch=64)) + '\n')
    code, _, err = tool(config(space=SPACE), '--out', out, '--batch', 2)
    assert code == 2
    assert err.startswith(f'error: {journal} holds what an interrupted run measured, but')
    assert err.count('\n') == 1
    assert journal.exists() and not out.exists()
    code, *_ = tool(
        *(tmp_path / 'config.py', '--out', out, '--batch', 2, '--fresh'),
        *('--validate', 0, '--max-seconds', 0.1),
    )
    assert code == 0
    assert out.exists() and not journal.exists()


@pytest.mark.parametrize(
    ('settings', 'args', 'sentence'),
    [
        (dict(), ['--out', 'x.json'], 'the config has to set `space`'),
        (dict(space=SPACE), [], 'sets no `latency.table`, so say --out PATH'),
        (
            dict(space=SPACE, latency=dict(table='v100_trt_fp16_b1')),
            [],
            'which comes with prunet_mm and is not replaced, so say --out PATH',
        ),
        (dict(space=SPACE), ['--out', '.'], 'is a folder: --out takes the path of a file'),
        (dict(space=SPACE), ['--out', 'x.yaml'], 'is written as .json, so name it so'),
        (dict(space=SPACE | dict(depth=3)), ['--out', 'x.json'], 'space: depth: unknown field'),
        (dict(space=SPACE), ['--out', 'x.json', '--device', 'cuda:99'], 'device cuda:99 was asked'),
        (dict(space=SPACE), ['--out', 'x.json', '--batch', '0'], 'of at least 1, not '),
        (dict(space=SPACE), ['--out', 'x.json', '--backend', 'tflite'], "no backend 'tflite'"),
        (
            dict(space=SPACE),
            ['--out', 'x.json', '--backend', 'cuda-graph'],
            'backend cuda-graph runs on cuda, not on cpu',
        ),
        (
            dict(space=SPACE, latency=dict(backend='tflite', table='x.json')),
            [],
            "no backend 'tflite', known are eager",
        ),
        (
            dict(space=SPACE, latency=dict(budgt_ms=3.0, table='x.json')),
            [],
            'model.latency.budgt_ms: there is no such setting, only backend, batch,',
        ),
        (
            dict(space=SPACE, latency=dict(targets_ms=[1, 'two'], table='x.json')),
            [],
            "latency.targets_ms is 'two': expected a number above 0",
        ),
        (
            dict(space=SPACE, latency=dict(batch=0, table='x.json')),
            [],
            'latency.batch is 0: expected a whole number above 0',
        ),
        (
            dict(space=SPACE, latency=dict(max_seconds='long', table='x.json')),
            [],
            "latency.max_seconds is 'long': expected a number above 0",
        ),
    ],
)
def test_bad_input_is_one_sentence(tool, config, tmp_path, monkeypatch, settings, args, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, err = tool(config(**settings), *args)
    assert code not in (0, None)
    assert sentence in err
    assert 'Traceback' not in err
    assert os.listdir(tmp_path) == ['config.py']


def test_the_slice_of_the_v100s_space_differs_in_nothing_but_the_images(root):
    paths = root / 'configs/search/prunet_v100.py', root / 'benchmarks/configs/v100_64px.py'
    whole, part = (SearchSpace.from_dict(load_config(path).space) for path in paths)
    assert (whole.resolution, part.resolution) == (224, 64)
    assert part.model_copy(update=dict(resolution=224)) == whole


def test_help_imports_no_torch(run_python):
    code = (
        'import runpy, sys\n'
        'sys.argv = ["build_latency_table.py", "--help"]\n'
        'try:\n'
        '    runpy.run_path("tools/build_latency_table.py", run_name="__main__")\n'
        'finally:\n'
        '    print("torch" in sys.modules, "mmengine" in sys.modules)\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('False False\n')
