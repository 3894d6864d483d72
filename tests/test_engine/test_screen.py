import errno
import io
import logging
import os
import re
import warnings
from pathlib import Path

import pytest
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner

from prunet_mm.engine import screen as module
from prunet_mm.engine.screen import Screen, screen
from prunet_mm.engine.screen_runner import ScreenRunner


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logger(tmp_path):
    return MMLogger.get_instance('test', log_file=str(tmp_path / 'log'))


@pytest.fixture(autouse=True)
def every_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        yield


def test_only_the_log_has_what_others_say_and_their_warnings_are_counted(logger, tmp_path, capsys):
    with screen():
        print('printed before there is a log')
        Screen.current.attach(logger)
        print('printed ', end='')
        print('in parts')
        warnings.warn('warned by a test', stacklevel=1)
        warnings.warn_explicit('an old name', DeprecationWarning, 'other.py', 1)
        logger.info('logged by a test')
        logger.warning('the other is deprecated')
        logger.warning('logged as a warning')
        logger.error('an error of anybody')
        assert Screen.current.log_only == 2
    print('after it')
    assert capsys.readouterr().out == 'error: an error of anybody\nafter it\n'
    log = (tmp_path / 'log').read_text()
    for words in (
        *('printed before there is a log', 'printed in parts', 'warned by a test', 'an old name'),
        *('logged by a test', 'the other is deprecated', 'logged as a warning', 'of anybody'),
    ):
        assert log.count(words) == 1


def test_what_this_package_says_is_shown_also_through_print_log(logger, capsys, monkeypatch):
    monkeypatch.setattr(module, 'OURS', Path(__file__).parent)
    with screen():
        Screen.current.attach(logger)
        logger.info('a decision')
        print_log('another', logger='current', level=logging.WARNING)
        warnings.warn('a doubt', stacklevel=1)
        assert Screen.current.log_only == 0
    assert capsys.readouterr().out == 'a decision\nwarning: another\nwarning: a doubt\n'


def test_results_by_class_are_shown_whoever_logs_them(logger, capsys):
    with screen():
        Screen.current.attach(logger)
        logger.info('\n+-----+\n| mAP |\n+-----+')
    assert '| mAP |' in capsys.readouterr().out


def test_without_a_terminal_there_is_a_line_now_and_then(capsys):
    with screen():
        for step in range(1, 101):
            Screen.current.progress('training', step / 100, lambda: (f'at {step}', ''))  # noqa: B023
        for batch in range(1, 11):  # an evaluation in between
            Screen.current.progress('validating', batch / 10, lambda: ('validating', ''), step=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [f'{5 * n}%' for n in range(1, 21)]


def test_a_terminal_gets_one_line_that_is_drawn_again(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setattr('sys.stdout', terminal := Terminal())
    with screen():
        for step in (1, 50):
            Screen.current._told.clear()  # as if time had passed
            Screen.current.progress('training', step / 100, lambda: (f'at {step}', 'loss'))  # noqa: B023
        Screen.current.show('a decision')
    text = terminal.getvalue()
    assert 'at 50' in text and '50 %' in text and 'loss' in text
    assert '\x1b[2K' in text  # a line is erased
    plain = re.sub('\x1b\\[[^A-Za-z]*[A-Za-z]', '', text.replace('\r', '\n')).splitlines()
    assert [line.rstrip() for line in plain].count('a decision') == 1


def test_a_log_on_a_full_disk_is_one_warning(logger, capsys):
    """And not a traceback for every line, as logging prints it."""

    class Built(ScreenRunner):
        def __init__(self):
            self._rank = 1

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, 'build_logger', lambda self: logger)
        built = Built().build_logger()
    (file,) = (one for one in built.handlers if isinstance(one, logging.FileHandler))
    file.stream, built.handlers[:] = Full(), [file]
    built.info('one')
    built.info('two')
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert 'cannot be written: No space left on device' in error
