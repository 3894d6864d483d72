import runpy

import pytest


@pytest.fixture(scope='module')
def check_env(root):
    return runpy.run_path(str(root / 'tools/check_env.py'))


def test_this_environment_is_fit_and_fully_reported(run_python):
    done = run_python('tools/check_env.py')
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ('torch', 'onedl-mmcv', 'mmcv ops', 'CPU', 'threads', 'digits', 'CIFAR-10', 'COCO'):
        assert word in done.stdout


def test_a_version_that_does_not_fit_is_reported_with_all_the_others(run_python, tmp_path):
    metadata = tmp_path / 'torch-1.13.dist-info/METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Name: torch\nVersion: 1.13\n')
    done = run_python('tools/check_env.py', PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert '!!  torch          1.13 (torch), does not fit, wanted >=' in done.stdout
    assert 'ok  pydantic' in done.stdout
    assert done.stderr == ''


def test_help_is_no_check_and_arguments_are_refused(run_python):
    done = run_python('tools/check_env.py', '--help')
    assert (done.returncode, done.stdout[:5]) == (0, 'usage')
    assert 'Packages' not in done.stdout
    assert run_python('tools/check_env.py', 'data/coco').returncode == 2


@pytest.mark.parametrize(
    ('card', 'archs', 'runs'),
    [
        ((7, 0), ['sm_75', 'sm_80', 'sm_90'], False),  # a V100 under a CUDA 13 build
        ((7, 0), ['sm_70', 'sm_80'], True),
        ((8, 6), ['sm_80', 'sm_90'], True),
        ((8, 0), ['sm_86'], False),
        ((12, 0), ['sm_90'], False),
        ((12, 0), ['sm_90', 'compute_90'], True),
        ((9, 0), ['sm_90a'], True),
        ((9, 5), ['sm_90a'], False),
    ],
)
def test_a_card_needs_code_that_it_can_run(check_env, card, archs, runs):
    assert check_env['runs_on'](card, archs) is runs


def test_an_absent_data_set_tells_the_missing_part_of_its_layout(check_env, tmp_path):
    image = tmp_path / 'data/cifar10/train/cat/1.png'
    image.parent.mkdir(parents=True)
    image.touch()
    rows = {name: (good, text) for good, name, text in check_env['data_rows'](tmp_path)}
    assert rows['CIFAR-10'] == (None, 'not there, expected: data/cifar10/test/CLASS/*')
    (tmp_path / 'data/cifar10/test/dog').mkdir(parents=True)
    (tmp_path / 'data/cifar10/test/dog/1.png').touch()
    rows = {name: (good, text) for good, name, text in check_env['data_rows'](tmp_path)}
    assert rows['CIFAR-10'] == (True, 'data/cifar10')


def test_a_package_that_does_not_import_is_named_with_its_error(check_env, tmp_path, monkeypatch):
    (tmp_path / 'broken_package.py').write_text('raise OSError("libsomething.so.1 is missing")')
    monkeypatch.syspath_prepend(tmp_path)
    reason = check_env['import_error']('broken_package')
    assert reason == 'OSError: libsomething.so.1 is missing'
