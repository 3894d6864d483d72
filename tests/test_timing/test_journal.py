import os

import pytest

from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.timing.journal import Journal, Visit

HEAD = dict(batch=64, space=dict(name='tiny'), part=0.5)


def visit(index: int, session: int = 0) -> Visit:
    return Visit(session, 0, index, 0.25, [1, 2], [[1.5, 2.5], [1.25, 2.0]], [3.0, 3.125])


@pytest.fixture
def path(tmp_path):
    """A journal of two visits."""
    journal = Journal(tmp_path / 'table.json.journal', HEAD)
    for index in range(2):
        journal.add(visit(index))
    journal.close()
    return journal.path


def test_goes_on_where_the_last_session_ended(path):
    journal = Journal(path, HEAD)
    assert journal.visits == [visit(0), visit(1)]
    assert journal.session == 1
    journal.add(visit(2, session=1))
    journal.close()
    assert Journal(path, HEAD).visits == [visit(0), visit(1), visit(2, session=1)]


def test_every_visit_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path / 'journal', HEAD)
    journal.add(visit(0))
    assert (tmp_path / 'journal').read_bytes().count(b'\n') == 2
    journal.close()


def test_what_is_read_again_is_what_was_in_memory(tmp_path):
    journal = Journal(tmp_path / 'journal', HEAD)
    journal.add(visit(0)._replace(seconds=1 / 3, laps_ms=[[2 / 3, 1e-5]], anchor_ms=[1 / 7]))
    journal.close()
    assert Journal(tmp_path / 'journal', HEAD).visits == journal.visits


@pytest.mark.parametrize('bytes_lost', range(1, 120, 7))
def test_a_line_cut_off_is_dropped(path, bytes_lost):
    data = path.read_bytes()
    path.write_bytes(data[:-bytes_lost])
    journal = Journal(path, HEAD)
    assert journal.visits == [visit(0)]
    journal.add(visit(1))
    journal.close()
    assert path.read_bytes() == data


def test_a_head_cut_off_starts_anew(path):
    path.write_bytes(path.read_bytes()[:20])
    journal = Journal(path, HEAD)
    assert journal.visits == []
    journal.close()
    assert Journal(path, HEAD).session == 0


@pytest.mark.parametrize(
    ('head', 'sentence'),
    [
        (HEAD | dict(batch=8), 'but batch was 64 and is 8 now'),
        (HEAD | dict(space=dict(name='other')), 'but space is another now'),
        (HEAD | dict(backend='eager'), 'but backend was None and is eager now'),
    ],
)
def test_the_journal_of_something_else_is_refused(path, head, sentence):
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f'{path} holds .*{sentence}.*--fresh'):
        Journal(path, head)
    assert path.read_bytes() == before


def test_fresh_starts_anew(path):
    journal = Journal(path, HEAD | dict(batch=8), fresh=True)
    assert (journal.visits, journal.session) == ([], 0)
    journal.close()
    assert path.read_bytes().count(b'\n') == 1


@pytest.mark.parametrize('line', [b'{"session": 0}', b'[1, 2]', b'\x80\x04', b'{"batch": 64'])
def test_a_damaged_line_is_one_sentence(path, line):
    lines = path.read_bytes().split(b'\n')
    path.write_bytes(b'\n'.join([lines[0], line, *lines[2:]]))
    with pytest.raises(ConfigError, match='line 2, is .*: start anew with --fresh'):
        Journal(path, HEAD)


def test_two_processes_do_not_write_into_one_journal(path):
    pytest.importorskip('fcntl')
    first = Journal(path, HEAD)
    with pytest.raises(ConfigError, match='another process is measuring'):
        Journal(path, HEAD)
    first.close()
    Journal(path, HEAD).close()


def test_a_full_disk_is_one_sentence():
    if not os.path.exists('/dev/full'):
        pytest.skip('no /dev/full')
    journal = Journal(None, HEAD)
    journal.path, journal.file = '/dev/full', open('/dev/full', 'wb')  # noqa: SIM115
    with pytest.raises(PrunetError, match='cannot write /dev/full: No space left on device'):
        journal.add(visit(0))
    assert journal.visits == []
    journal.close()


def test_a_folder_is_no_journal(tmp_path):
    with pytest.raises(PrunetError, match='Is a directory'):
        Journal(tmp_path, HEAD)


def test_a_journal_without_a_file_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, HEAD)
    journal.add(visit(0))
    journal.close()
    assert journal.visits == [visit(0)]
    assert list(tmp_path.iterdir()) == []
