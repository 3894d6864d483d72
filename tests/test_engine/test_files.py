import os
import subprocess
import sys

import pytest

from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import PrunetError


def test_text_and_bytes_are_written_and_nothing_else_is_left(tmp_path):
    path = tmp_path / 'file'
    write_atomic(path, 'ä\n')
    assert path.read_bytes() == 'ä\n'.encode()
    write_atomic(str(path), b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert os.listdir(tmp_path) == ['file']


def test_new_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / 'plain'
    plain.write_text('')
    write_atomic(tmp_path / 'ours', '')
    assert (tmp_path / 'ours').stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize('moment', ['fsync', 'replace'])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment):
    path = tmp_path / 'file'
    write_atomic(path, 'old')

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, 'new')
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_a_full_disk_leaves_the_old_file_and_is_one_sentence(tmp_path):
    path = tmp_path / 'file'
    write_atomic(path, 'old')
    # A limit on the size of files fails a write half-way, as a full disk does.
    code = f"""
import resource
from prunet_mm.engine.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic({str(path)!r}, 'n' * 10_000)
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == (
        f'PrunetError cannot write {path}: File too large; what was there before is unchanged\n'
    )
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('old')
    for path in (tmp_path / 'missing' / 'x', tmp_path / 'file' / 'x', tmp_path):
        with pytest.raises(PrunetError, match=f'cannot write {path}: [A-Z][a-z ]+; what was'):
            write_atomic(path, 'new')
    assert os.listdir(tmp_path) == ['file']


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_without_permission_keeps_the_old_file(tmp_path):
    write_atomic(tmp_path / 'file', 'old')
    tmp_path.chmod(0o500)
    with pytest.raises(PrunetError, match='Permission denied'):
        write_atomic(tmp_path / 'file', 'new')
    tmp_path.chmod(0o700)
    assert (tmp_path / 'file').read_text() == 'old'


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / 'target').write_text('old')
    (tmp_path / 'link').symlink_to('target')
    write_atomic(tmp_path / 'link', 'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'target').read_text() == 'new'


def test_importing_it_imports_no_torch():
    code = 'import sys, prunet_mm.engine.files; assert "torch" not in sys.modules'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
