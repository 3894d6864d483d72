import json
import runpy
import sys
from functools import partial

import pytest

from prunet_mm.spec import SearchSpace
from prunet_mm.timing.backends import BACKENDS
from prunet_mm.timing.backends.torch_backends import Eager
from prunet_mm.timing.device import device_name

SPACE = dict(
    name='tiny',
    resolution=4,
    in_channels=1,
    stem=dict(out_channels=4, stride=1),
    stages=[dict(width=4, stride=2, depth=1, kernels=[3], granularity=8)],
    tail=dict(num_classes=2),
)
SPEC = SearchSpace.from_dict(SPACE).largest()


@pytest.fixture
def tool(run_tool):
    return partial(run_tool, 'benchmark_latency')


@pytest.fixture
def subnet(tmp_path):
    path = tmp_path / 'subnet.json'
    SPEC.save(path)
    return path


@pytest.fixture
def table(tmp_path, synthetic_table):
    path = tmp_path / 'table.json'
    synthetic_table(SPACE, device=device_name('cpu'), batch=2).save(path)
    return path


class NotANumber(Eager):
    """Eager that computes NaN."""

    name = 'nan'

    def prepare(self, model, inputs, dtype):
        call = super().prepare(model, inputs, dtype)
        return lambda x: call(x) * float('nan')


def test_rows_are_targets_by_backends_by_batches(tool, subnet, tmp_path):
    code, out, err = tool(
        *(subnet, subnet, '--backend', 'eager,torchscript', '--batch', '1,2'),
        *('--max-seconds', 0.1, '--json', tmp_path / 'a.json'),
        *('--plot', tmp_path / 'a.png'),
    )
    assert code == 0, err
    for words in (
        'device  ',
        'software  ',
        'clocks  ',
        'drift  ',
        'eager and torchscript',
        '1 CPU thread',
    ):
        assert words in out
    rows = json.loads((tmp_path / 'a.json').read_text())
    assert len(rows) == 8
    assert [(row['backend'], row['batch']) for row in rows[:4]] == [
        *(('eager', 1), ('eager', 2), ('torchscript', 1), ('torchscript', 2))
    ]
    for row in rows:
        assert row['kind'] == 'measured'
        assert 0 < row['latency_ms'] <= row['p90_ms'] <= row['p99_ms']
        assert row['images_per_second'] == pytest.approx(1e3 * row['batch'] / row['latency_ms'])
        assert (row['params'], row['macs']) == (SPEC.params(), SPEC.macs())
        assert row['ratio'] > 0
        assert row['device'] == device_name('cpu')
    assert rows[0]['ratio'] == rows[1]['ratio'] == 1.0
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


def test_a_detector_is_its_backbone_or_with_whole_two_rows(tool, root, tmp_path):
    path = root / 'configs/det/efficientdet_prunet_digits.py'
    quick = '--max-seconds', 0.1, '--json', tmp_path / 'a.json'
    code, out, err = tool(path, *quick)
    assert code == 0, err
    (backbone,) = json.loads((tmp_path / 'a.json').read_text())
    assert (backbone['part'], backbone['input_size']) == ('backbone', [128, 128])
    assert 'efficientdet_prunet_digits, backbone  ' in out
    assert 'made-up scores' not in out

    code, out, err = tool(path, '--whole', *quick)
    assert code == 0, err
    without, with_it = json.loads((tmp_path / 'a.json').read_text())
    assert without['params'] == with_it['params'] > backbone['params']
    assert without['part'] == 'without post-processing'
    assert (with_it['part'], with_it['candidates']) == ('with post-processing', 900)
    assert {'mmcv', 'mmdet'} <= set(with_it['software'])
    for words in (
        'efficientdet_prunet_digits, without post-processing  ',
        'efficientdet_prunet_digits, with post-processing of 900 candidates  ',
        'made-up scores',
    ):
        assert words in out


def test_a_row_that_fails_says_why_and_the_others_go_on(tool, subnet, monkeypatch, tmp_path):
    monkeypatch.setitem(BACKENDS, 'nan', NotANumber)
    code, out, err = tool(
        *(subnet, '--backend', 'eager,nan', '--batch', f'1,{10**11}'),
        *('--max-seconds', 0.1, '--json', tmp_path / 'a.json'),
    )
    assert code == 2
    assert err.splitlines()[-1] == 'error: 3 of 4 rows failed; the table says why'
    rows = json.loads((tmp_path / 'a.json').read_text())
    assert [row['kind'] for row in rows] == ['measured', *['failed'] * 3]
    assert rows[1]['error'].startswith('out of memory when 5960.5 GiB were asked for')
    assert rows[2]['error'] == 'the output has NaN'
    assert 'the output has NaN' in out
    assert 'out of memory' in out


def test_ctrl_c_prints_what_is_done(tool, subnet, tmp_path, monkeypatch):
    from prunet_mm.timing.engine import CpuStopwatch

    passes, laps_ms = iter(range(200)), CpuStopwatch.laps_ms

    def interrupted(self, steps, x):
        if next(passes) == 199:
            raise KeyboardInterrupt
        return laps_ms(self, steps, x)

    monkeypatch.setattr(CpuStopwatch, 'laps_ms', interrupted)
    code, out, err = tool(subnet, '--precision', 0.01, '--json', tmp_path / 'a.json')
    assert code == 130
    assert err.splitlines()[-1] == 'interrupted: the table holds what was measured until then'
    (row,) = json.loads((tmp_path / 'a.json').read_text())
    assert 100 < row['samples'] < 200
    assert f'{row["latency_ms"]:.3f}' in out
    assert '! not known to 0.01%' in out


def test_what_a_table_predicts_stands_beside_it(tool, subnet, table, tmp_path):
    code, out, err = tool(
        *(subnet, '--table', table, '--max-seconds', 0.1, '--json', tmp_path / 'a.json')
    )
    assert code == 0, err
    assert 'measured table [ms]' in out
    (row,) = json.loads((tmp_path / 'a.json').read_text())
    assert row['batch'] == 2
    assert row['predicted_ms'] > 0 and row['predicted_kind'] == 'measured'
    assert f'{row["predicted_ms"] / row["latency_ms"]:.3f}' in out


def test_the_smallest_networks_of_the_zoo_are_timed_by_default(root, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['benchmark_latency.py'])
    names = runpy.run_path(str(root / 'tools/benchmark_latency.py'))
    assert names['parse_args']().targets == ['prunet_p0', 'prunet_p1']


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (['resnet_17'], 'no network "resnet_17" in the zoo'),
        (['none.json'], 'cannot read the network none.json'),
        (['none.py'], 'none.py: there is no such config file'),
        (['none.onnx'], 'none.onnx: exported files are not timed: name the config that it was'),
        (['SUBNET', '--threads', '4096'], 'of affinity and control group, too'),
        (['SUBNET', '--table', 'none.json'], 'there is no latency table none.json; measure one'),
        (['SUBNET', '--table', 'TABLE', '--batch', '3'], 'is of eager, float32, batch 2, 1 thread'),
        (['SUBNET', '--table', 'TABLE', '--backend', 'compile'], 'no other ones can be given'),
        (['prunet_p0', '--table', 'v100_trt_fp16_b1'], 'v100_trt_fp16_b1 is estimated, by a'),
        (['prunet_p0', '--table', 'TABLE'], 'has no latency for conv 3->32'),
        (['SUBNET', '--device', 'cuda:99'], 'device cuda:99 was asked for'),
        (['SUBNET', '--device', 'tpu'], 'unknown device "tpu"'),
        (['SUBNET', '--backend', 'tensorrt'], 'backend tensorrt runs on cuda, not on cpu'),
        (['SUBNET', '--backend', 'eager,tflite'], "no backend 'tflite', known are eager, "),
        (['SUBNET', '--dtype', 'int8'], "invalid choice: 'int8'"),
        (['SUBNET', '--input-size', '0'], "expected a size such as 224 or 800x1344, not '0'"),
        (['SUBNET', '--batch', '1,0'], "expected a whole number of at least 1, not '0'"),
        (['SUBNET', '--part', 'backbone', '--whole'], 'not allowed with argument --part'),
        (['SUBNET', '--plot', 'a.json'], 'the file is written as .png'),
    ],
)
def test_bad_input_is_one_sentence(tool, subnet, table, monkeypatch, tmp_path, args, sentence):
    monkeypatch.chdir(tmp_path)
    paths = dict(SUBNET=subnet, TABLE=table)
    code, _, err = tool(*(paths.get(arg, arg) for arg in args))
    assert code == 2
    assert sentence in err.splitlines()[-1]
    assert 'Traceback' not in err


def test_a_table_cut_off_is_refused(tool, table, subnet):
    table.write_text(table.read_text()[:-20])
    code, _, err = tool(subnet, '--table', table)
    assert code == 2
    assert 'is cut off or not JSON' in err


def test_help_imports_no_torch(run_python):
    code = (
        'import runpy, sys\n'
        'sys.argv = ["benchmark_latency.py", "--help"]\n'
        'try:\n'
        '    runpy.run_path("tools/benchmark_latency.py", run_name="__main__")\n'
        'finally:\n'
        '    print("torch" in sys.modules, "mmengine" in sys.modules)\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('False False\n')
