import os
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest
from mmengine.config import Config
from packaging.requirements import Requirement

import prunet_mm
from prunet_mm.dependencies import DEPENDENCIES
from prunet_mm.spec import NetworkSpec


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


@pytest.fixture(scope='module')
def built(root, tmp_path_factory):
    """Both distributions, built by setuptools alone, since pip would fetch it again."""
    folder = tmp_path_factory.mktemp('built')
    subprocess.run(
        [
            sys.executable,
            'setup.py',
            '-q',
            'build',
            '-b',
            folder / 'build',
            'egg_info',
            '-e',
            folder,
        ]
        + ['bdist_wheel', '-d', folder, 'sdist', '-d', folder],
        cwd=root,
        check=True,
        capture_output=True,
    )
    return folder


def test_wheel_ships_the_data_files_configs_and_tools(root, built):
    (wheel,) = built.glob('*.whl')
    assert wheel.stat().st_size < 3e6
    shipped = set(zipfile.ZipFile(wheel).namelist())
    package = root / 'prunet_mm'
    folders = ('spec/zoo', 'estimates', 'latency/tables')
    data = [path for folder in folders for path in package.glob(f'{folder}/*.json')]
    assert {path.parent for path in data} == {package / folder for folder in folders}
    assert {str(path.relative_to(root)) for path in [*data, *package.rglob('*.py')]} <= shipped
    mim = [path for name in ('configs', 'tools') for path in (root / name).rglob('*.*')]
    mim = {str(path.relative_to(root)) for path in mim if '__pycache__' not in path.parts}
    assert {f'prunet_mm/.mim/{name}' for name in (*mim, 'model-index.yml')} <= shipped
    templates = (package / 'report/templates').iterdir()
    assert {str(path.relative_to(root)) for path in templates} <= shipped
    assert not [name for name in shipped if name.endswith('.pyc')]


def test_sdist_holds_what_git_does(root, built):
    git = subprocess.run(['git', 'ls-files'], cwd=root, capture_output=True, text=True)
    if git.returncode:
        pytest.skip('this is no git checkout')
    tracked = {name for name in git.stdout.splitlines() if not name.startswith('.')}
    folders = {name for name in tracked if (root / name).is_dir()}  # links, to what is in it anyway
    (sdist,) = built.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        shipped = {name.partition('/')[2] for name in archive.getnames()}
    assert tracked - folders - shipped == set()


@pytest.fixture
def installed(built, tmp_path):
    """Run ``prunet`` as installed from the wheel, beside the environment, in an empty folder."""
    site, empty = tmp_path / 'site', tmp_path / 'empty folder'
    empty.mkdir()
    (wheel,) = built.glob('*.whl')
    pip = [
        sys.executable,
        '-m',
        'pip',
        'install',
        '-q',
        '--no-deps',
        '--no-index',
        '--target',
        site,
    ]
    subprocess.run([*pip, wheel], check=True, capture_output=True)

    def run(*args):
        return subprocess.run(
            [sys.executable, site / 'bin/prunet', *map(str, args)],
            cwd=empty,
            env={**os.environ, 'PYTHONPATH': str(site)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def test_a_search_from_the_wheel_in_an_empty_folder(installed, root, synthetic_table, tmp_path):
    space = Config.fromfile(root / 'configs/search/prunet_digits.py').space.to_dict()
    synthetic_table(space).save(tmp_path / 'table.json')
    done = installed(
        *('search', 'prunet_digits', '--work-dir', 'found', '--cfg-options'),
        f'model.latency.table={tmp_path}/table.json',
        'model.latency.batch=1',
        *('train_cfg.max_iters=6', 'train_cfg.warmup_iters=2', 'train_dataloader.batch_size=8'),
        *('train_cfg.architecture_batch_size=8', 'custom_hooks.5.threshold=0.9'),
        'optim_wrapper.architecture.optimizer.lr=0.2',
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / 'empty folder/found'
    assert NetworkSpec.load(folder / 'subnet.json').provenance['seed'] == 0
    assert 'prunet train configs/cls/prunet_digits.py' in done.stdout
    assert 'tools/' not in done.stdout
    assert '<pre>prunet train configs/cls/prunet_digits.py' in (folder / 'report.html').read_text()
    here = installed('check-env')
    assert 'fits' in here.stdout, here.stderr


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
