import json
from functools import partial

import pytest

from prunet_mm.estimates.roofline import DEVICES, Roofline
from prunet_mm.latency import LatencyTable
from prunet_mm.search.budget import Budget
from prunet_mm.spec import SearchSpace, load_zoo

SPACE = dict(
    name='tiny',
    resolution=16,
    stem=dict(out_channels=8),
    stages=[dict(width=8, stride=2, depth=2, kernels=[3], granularity=8)],
    tail=dict(num_classes=2),
)


@pytest.fixture
def predict(run_tool, monkeypatch, tmp_path):
    """Run the tool in an empty folder, in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(run_tool, 'predict_latency')


@pytest.fixture
def records(predict):
    """The records of a run."""

    def run(*args):
        code, out, err = predict(*args, '--json')
        assert code == 0, err
        return json.loads(out)

    return run


def test_a_record_per_target_and_batch_estimated(records):
    found = records('prunet_p0', 'gpunet_2', '--device', 'a100', '--batch', 1, 64)
    assert [(one['target'], one['batch']) for one in found] == [
        *(('prunet_p0', 1), ('prunet_p0', 64), ('gpunet_2', 1), ('gpunet_2', 64))
    ]
    assert {(one['device'], one['kind']) for one in found} == {('a100', 'estimated')}
    expected = Roofline.load().predict_ms(load_zoo('gpunet_2'), DEVICES['a100'], 64)
    assert found[-1]['latency_ms'] == pytest.approx(expected, abs=1e-4)
    assert [one['published_ms'] for one in found] == [0.45, 4.12, 1.25, 14.76]
    assert all('server compute infer' in one['protocol'] for one in found)


def test_the_table_says_estimated_with_its_error_and_the_published_figure_beside_it(predict):
    code, out, _ = predict('prunet_p0', 'prunet_p1')
    assert code == 0
    for words in ('ESTIMATED, not measured', 'Tesla V100', 'Mean error 2.6%', 'left out', 'Triton'):
        assert words in out
    titles, p0, p1 = (line.split() for line in out.splitlines()[-3:])
    assert 'ESTIMATED' in titles and 'published' in titles
    assert p0[3] == '0.63'
    assert p1[3:] == ['-', '-']  # nobody has published it


def test_a_network_from_a_file(records, tmp_path):
    load_zoo('prunet_p0').save(tmp_path / 'subnet.json')
    (from_file,), (from_zoo,) = records('subnet.json'), records('prunet_p0')
    assert from_file == from_zoo | dict(target='subnet.json')


def test_a_config_of_a_classifier(records, root):
    path = root / 'configs/cls/prunet-p0_8xb256_in1k.py'
    (of_config,), (of_zoo,) = records(path), records('prunet_p0')
    assert of_config['latency_ms'] == of_zoo['latency_ms']


def test_a_search_config_gets_its_range_and_a_table(predict, tmp_path):
    (tmp_path / 'search.py').write_text(f'space = {SPACE}\n')
    code, out, err = predict('search.py', '--batch', 2, '--save-table', 'table.json')
    assert code == 0, err
    assert 'tiny_smallest' in out and 'tiny_largest' in out and 'wrote table.json' in out
    table, space = LatencyTable.load('table.json'), SearchSpace.from_dict(SPACE)
    assert (table.kind, table.batch) == ('estimated', 2)
    expected = Roofline.load().predict_ms(space.largest(), DEVICES['v100'], 2)
    assert table.predict_ms(space.largest()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('batch', [1, 2, 3, 5, 8])
def test_the_limits_of_a_space_are_budgets_that_a_search_accepts(records, predict, tmp_path, batch):
    (tmp_path / 'search.py').write_text(f'space = {SPACE}\n')
    space = SearchSpace.from_dict(SPACE)
    ends = [space.smallest(), space.largest()]
    exact = [Roofline.load().predict_ms(end, DEVICES['v100'], batch) for end in ends]
    found = [record['latency_ms'] for record in records('search.py', '--batch', batch)]
    shown = [
        float(line.split()[3])
        for line in predict('search.py', '--batch', batch)[1].strip().splitlines()[-2:]
    ]
    for limits in (found, shown):
        Budget.resolve({'targets_ms': limits}, *exact)
        assert limits == pytest.approx(exact, rel=1e-3)


def test_a_table_predicts_as_what_it_is(records, predict, synthetic_table, tmp_path):
    space = SearchSpace.from_dict(SPACE)
    table = synthetic_table(SPACE)
    table.save(tmp_path / 'table.json')
    space.largest().save(tmp_path / 'subnet.json')
    (record,) = records('subnet.json', '--table', 'table.json')
    assert (record['kind'], record['device']) == ('measured', 'a device far away')
    assert record['latency_ms'] == pytest.approx(table.predict_ms(space.largest()), abs=1e-4)
    _, out, _ = predict('subnet.json', '--table', 'table.json')
    assert 'ESTIMATED' not in out
    _, out, _ = predict('prunet_p0', '--table', 'v100_trt_fp16_b1')
    assert 'ESTIMATED' in out


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (['resnet50'], 'no network "resnet50" in the zoo, known are gpunet_0'),
        (['none.json'], 'cannot read the network none.json'),
        (['none.py'], 'none.py: there is no such config file'),
        (['prunet_p0', '--device', 'tpu'], 'for the device "tpu", only for v100, a100'),
        (['prunet_p0', '--batch', '0'], '--batch 0: expected a whole number of at least 1'),
        (['prunet_p0', '--batch', '1', 'x'], '--batch x: expected a whole number'),
        (['prunet_p0', '--table', 'none.json'], 'there is no latency table none.json'),
        (['prunet_p0', '--table', 'x', '--batch', '2'], '--table has a device and a batch'),
        (['prunet_p0', '--save-table', 'x.json'], 'takes one search config and one --batch'),
        (['gpunet_0', '--table', 'v100_trt_fp16_b1'], 'has no latency for conv 3->32'),
    ],
)
def test_bad_input_is_one_sentence(predict, args, sentence):
    code, out, err = predict(*args)
    assert (code, out) == (2, '')
    assert sentence in err
    assert err.startswith('error: ') and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ("model = dict(type='RetinaNet')", 'only the latency of a classifier on a PRUNet is estim'),
        (
            "model = dict(type='ImageClassifier', backbone=dict(type='PRUNet'))",
            'arch is None, but has to be a name, a path or a dict',
        ),
        ('space = 3', 'space: '),
    ],
)
def test_a_config_of_something_else_is_one_sentence(predict, tmp_path, text, sentence):
    (tmp_path / 'other.py').write_text(text)
    code, _, err = predict('other.py')
    assert code == 2
    assert err.startswith('error: ') and err.count('\n') == 1
    assert sentence in err


def test_neither_help_nor_a_prediction_imports_torch(run_python):
    for argument in ('--help', 'prunet_p0'):
        code = (
            'import runpy, sys\n'
            f'sys.argv = ["predict_latency.py", "{argument}"]\n'
            'try:\n'
            '    runpy.run_path("tools/predict_latency.py", run_name="__main__")\n'
            'finally:\n'
            '    print("torch" in sys.modules, "mmengine" in sys.modules)\n'
        )
        done = run_python('-c', code)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith('False False\n')
