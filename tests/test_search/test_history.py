import json
import resource

import pytest

from prunet_mm.errors import SearchError
from prunet_mm.search.history import FILE_NAME, History, read_history


@pytest.fixture
def write(tmp_path):
    def write(steps, tail=''):
        rows = ''.join(json.dumps(dict(step=step, loss=0.1)) + '\n' for step in steps)
        (tmp_path / FILE_NAME).write_text(rows + tail)

    return write


def steps(folder):
    return [row['step'] for row in read_history(folder / FILE_NAME)]


def test_rows_are_on_disk_at_once_and_as_they_were(tmp_path):
    row = dict(step=3, loss=0.1 + 0.2, keep={}, events=[dict(kind='layer')])
    history = History.open(tmp_path, steps=0, rows=0)
    history.append(row)
    assert read_history(tmp_path / FILE_NAME) == [row]
    history.sync()


def test_rows_beyond_the_checkpoint_are_cut(tmp_path, write):
    write([3, 4, 5, 6, 7])
    History.open(tmp_path, steps=5, rows=3).append(dict(step=6))
    assert steps(tmp_path) == [3, 4, 5, 6]


def test_a_row_that_was_being_written_is_cut(tmp_path, write):
    write([3, 4, 5], tail='{"step": 6, "lo')
    History.open(tmp_path, steps=5, rows=3).append(dict(step=6))
    assert steps(tmp_path) == [3, 4, 5, 6]


def test_a_search_from_the_beginning_has_no_rows(tmp_path, write):
    write([3, 4])
    History.open(tmp_path, steps=0, rows=0)
    assert steps(tmp_path) == []


@pytest.mark.parametrize('present', [[], [3, 4], [4, 5]])
def test_rows_that_are_missing_are_an_error_that_leaves_the_file(tmp_path, write, present):
    write(present)
    with pytest.raises(SearchError, match=f'holds {len(present)} rows up to step 5.* of 3'):
        History.open(tmp_path, steps=5, rows=3)
    assert steps(tmp_path) == present


def test_a_full_disk_is_one_sentence_and_what_it_took_is_cut_later(tmp_path):
    history = History.open(tmp_path, steps=0, rows=0)
    history.append(dict(step=1, loss=0.5))
    size, before = (tmp_path / FILE_NAME).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, before[1]))
    try:
        with pytest.raises(SearchError, match=f'cannot write .*{FILE_NAME}: .*; free some space'):
            history.append(dict(step=2, loss=0.25))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / FILE_NAME).stat().st_size == size + 9
    del history  # writes nothing more
    History.open(tmp_path, steps=1, rows=1).append(dict(step=2))
    assert steps(tmp_path) == [1, 2]


def test_reading_says_what_is_wrong(tmp_path, write):
    with pytest.raises(SearchError, match='there is no such history'):
        read_history(tmp_path / FILE_NAME)
    write([1], tail='{"step"')
    with pytest.raises(SearchError, match='damaged'):
        read_history(tmp_path / FILE_NAME)
