import pytest

from prunet_mm.dependencies import DEPENDENCIES, check_dependencies


@pytest.fixture
def installs(tmp_path, monkeypatch):
    """Pretend that exactly these distributions are installed; return where their metadata lies."""

    def install(**versions):
        for name, version in versions.items():
            folder = tmp_path / f'{name}-{version}.dist-info'
            folder.mkdir()
            distribution = name.replace('_', '-')
            (folder / 'METADATA').write_text(f'Name: {distribution}\nVersion: {version}\n')
        return tmp_path

    def install_here(**versions):
        monkeypatch.setattr('sys.path', [str(install(**versions))])

    install_here.elsewhere = install
    return install_here


def test_nothing_installed_is_no_error(installs):
    installs()
    check_dependencies()


@pytest.mark.parametrize(
    'versions',
    [
        dict(onedl_mmcv='2.3.6', onedl_mmengine='0.10.12', onedl_mmpretrain='1.3.6'),
        dict(mmcv='2.1.0', mmengine='0.10.7', mmpretrain='1.2.0', mmdet='3.3.0'),
        dict(mmcv_lite='2.2.0', torch='2.11.0+cu130'),
        dict(torch='2.7.0a0+ecf3bae40a'),
    ],
    ids=['forks', 'originals', 'lite', 'pre-release'],
)
def test_forks_and_originals_fit_alike(installs, versions, recwarn):
    installs(**versions)
    check_dependencies()
    assert not recwarn


@pytest.mark.parametrize(
    ('versions', 'found', 'wanted'),
    [
        (dict(mmcv='1.7.2'), 'mmcv 1.7.2', DEPENDENCIES['mmcv']['mmcv']),
        (dict(onedl_mmcv='3.0.0'), 'onedl-mmcv 3.0.0', DEPENDENCIES['mmcv']['onedl-mmcv']),
        (dict(torch='1.13.1+cu117'), 'torch 1.13.1+cu117', DEPENDENCIES['torch']['torch']),
        (dict(torch='2.6', pydantic='1.10.2'), 'pydantic 1.10.2', '>=2'),
        (dict(numpy='garbage'), 'numpy garbage', DEPENDENCIES['numpy']['numpy']),
    ],
)
def test_a_version_that_does_not_fit_is_named_with_what_fits(installs, versions, found, wanted):
    installs(**versions)
    with pytest.raises(ImportError) as error:
        check_dependencies()
    message = str(error.value)
    assert found in message
    assert wanted in message
    assert 'pip install' in message
    assert '\n' not in message


def test_fork_and_original_together_are_warned_of(installs):
    installs(onedl_mmcv='2.3.6', mmcv='2.1.0')
    with pytest.warns(UserWarning, match='onedl-mmcv 2.3.6 and mmcv 2.1.0.*uninstall both'):
        check_dependencies()


def test_the_package_itself_refuses_to_be_imported(installs, run_python):
    folder = installs.elsewhere(mmcv='1.7.2')
    done = run_python('-c', 'import prunet_mm.spec', PYTHONPATH=str(folder))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('ImportError: prunet_mm needs mmcv>=')
