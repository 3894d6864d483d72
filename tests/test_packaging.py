import os
import re
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

import prunet_mm
from prunet_mm.dependencies import DEPENDENCIES


def requirements(path):
    lines = (line.split('#')[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def test_version_is_a_release_number():
    assert re.fullmatch(r'\d+\.\d+\.\d+', prunet_mm.__version__)


@pytest.mark.parametrize('modules', ['prunet_mm', 'prunet_mm.spec', 'prunet_mm.errors'])
def test_import_needs_no_torch(run_python, modules):
    done = run_python('-c', f'import sys, {modules}; print("torch" in sys.modules)')
    assert done.stdout.strip() == 'False', done.stderr


def test_registers_where_mmengine_is_loaded_first(run_python):
    code = 'import mmengine, prunet_mm; from mmpretrain.registry import MODELS; print(%s)'
    done = run_python('-c', code % "MODELS.get('PRUNet')")
    assert 'prunet_mm.models' in done.stdout, done.stderr


def test_registers_on_call_where_mmengine_comes_later(run_python):
    code = (
        'import prunet_mm, mmengine; from mmpretrain.registry import MODELS;'
        "print(MODELS.get('PRUNet')); prunet_mm.register_all_modules();"
        "print(MODELS.get('PRUNet'))"
    )
    before, after = run_python('-c', code).stdout.splitlines()
    assert before == 'None'
    assert 'prunet_mm.models' in after


def test_missing_openmmlab_package_is_one_sentence(run_python):
    code = """
import sys

class Hidden:
    def find_spec(name, path=None, target=None):
        if name.startswith('mmpretrain'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Hidden)
import mmengine, prunet_mm
"""
    done = run_python('-c', code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        'ImportError: the models of prunet_mm need mmpretrain'
    )


def test_checked_ranges_are_the_ones_installed(root):
    installed = {
        requirement.name: requirement.specifier
        for name in ('base', 'mm', 'det')
        for requirement in requirements(root / f'requirements/{name}.txt')
    }
    for import_name, owners in DEPENDENCIES.items():
        ours, wanted = next(iter(owners.items()))  # the fork, where there is one
        assert installed[ours] == Requirement('x' + wanted).specifier, import_name


def test_openmmlab_is_never_required_outright(root):
    assert not [r.name for r in requirements(root / 'requirements/base.txt') if 'mm' in r.name]


def test_every_requirement_is_pinned_in_its_range(root):
    pins = {pin.name.lower(): pin.specifier for pin in requirements(root / 'constraints.txt')}
    for path in (root / 'requirements').glob('*.txt'):
        for requirement in requirements(path):
            (pin,) = pins[requirement.name.lower()]
            assert pin.operator == '=='
            assert requirement.specifier.contains(pin.version), requirement


def test_wheel_ships_the_data_files(root, tmp_path):
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build', '-b', tmp_path / 'build', 'egg_info']
        + ['-e', tmp_path, 'bdist_wheel', '-d', tmp_path],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob('*.whl')
    shipped = set(zipfile.ZipFile(wheel).namelist())
    package = root / 'prunet_mm'
    folders = ('spec/zoo', 'latency', 'latency/tables')
    data = [path for folder in folders for path in package.glob(f'{folder}/*.json')]
    assert {path.parent for path in data} == {package / folder for folder in folders}
    assert {str(path.relative_to(root)) for path in [*data, *package.rglob('*.py')]} <= shipped


def test_stamps_follow_success_and_a_second_make_installs_nothing(root, tmp_path):
    def commands(*targets):
        make = ['make', '-n', '--no-print-directory', f'VENV={tmp_path}', *targets]
        return subprocess.run(make, cwd=root, check=True, capture_output=True, text=True).stdout

    assert '-m pytest' in commands('test').rstrip().splitlines()[-1]
    assert commands('demo').index('pip install') < commands('demo').index('touch')
    for stamp in ('.demo-installed', '.det-installed', '.test-installed'):
        (tmp_path / stamp).touch()
    assert 'pip install' not in commands('demo', 'detect', 'test')


def test_ci_takes_wheels_beside_the_checkout_where_there_are_any(root, tmp_path):
    script = tmp_path / 'checkout/.ci/run'
    script.parent.mkdir(parents=True)
    script.write_text((root / '.ci/run').read_text())
    make = tmp_path / 'bin/make'
    make.parent.mkdir()
    make.write_text('#!/bin/sh\necho "$1 [$PIP_FIND_LINKS]"\n')
    make.chmod(0o755)

    def run(find_links):
        env = {'PATH': f'{make.parent}:{os.environ["PATH"]}', **find_links}
        done = subprocess.run(['bash', script], env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert run({}) == 'test []'
    assert run({'PIP_FIND_LINKS': '/mine'}) == 'test [/mine]'
    wheels = tmp_path / 'shared/wheels'
    wheels.mkdir(parents=True)
    beside = f'{tmp_path}/checkout/../shared/wheels'
    assert run({}) == f'test [{beside}]'
    assert run({'PIP_FIND_LINKS': '/mine'}) == f'test [/mine {beside}]'
