"""What a person sees of a run: a few lines and one live line. The log file has everything."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import mmengine.logging
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from prunet_mm.engine.shipped import in_this_command

OURS = Path(__file__).resolve().parents[1]
# Whoever logs is looked for behind these; `print_log` is of mmengine for everybody.
LOGGING = *(os.path.dirname(one.__file__) for one in (logging, mmengine.logging)), __file__
# Of other packages, and yet something that a person has to know: an early end, results by class.
DECIDING, TABLE = 'early_stopping_hook.py', '\n+--'


class Screen(logging.Handler):
    """Shows what this package logs, progress, and errors; all else is for the log file alone.

    To a terminal progress is one line that is drawn again and again; to anything else, such as a
    file, it is a line now and then, without control characters.

    Attributes:
        current: The screen of the run that is being set up or going on; None with ``--verbose``.
        log_only: How many warnings of other packages only the log file has.
    """

    current: Screen | None = None

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.out = _Lasting(sys.stdout)
        self.live = self.out.isatty() and os.environ.get('TERM') != 'dumb'
        self.log_only = 0
        self._logger: MMLogger | None = None
        self._early: list[tuple[int, str]] = []
        self._told: dict[str, tuple[float, float]] = {}
        # Drawn when told to, not by a thread: data loaders fork this process.
        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=10),
            TextColumn('{task.percentage:3.0f} %'),
            TextColumn('{task.fields[status]}'),
            console=Console(file=self.out),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task('', total=1.0, status='')

    def attach(self, logger: MMLogger) -> None:
        """Takes the place of a logger's own output to the screen."""
        files = [one for one in logger.handlers if isinstance(one, logging.FileHandler)]
        logger.handlers[:] = [*files, self]
        self._logger = logger
        for level, text in self._early:
            self.to_log_only(text, level)

    def show(self, text: str) -> None:
        """Shows lines above the live one."""
        text = in_this_command(text)
        if self._bar.live.is_started:
            self._bar.console.print(Text(text), soft_wrap=True)
        else:
            print(text, file=self.out, flush=True)

    def progress(
        self, phase: str, done: float, status: Callable[[], tuple[str, str]], step: float = 0.05
    ) -> None:
        """Shows how far a phase is, if it is time to.

        Args:
            phase: What goes on, such as 'training'.
            done: Part of it that is done, 0 to 1.
            status: Gives what to put before and after the bar; called only if it is shown.
            step: Without a terminal, the part that has to be done from one line to the next; a
                minute is enough, too.
        """
        now = time.monotonic()
        before, when = self._told.setdefault(phase, (0.0, 0.0 if self.live else now))
        if done < 1 and (
            now - when < 0.2 if self.live else now - when < 60 and done - before < step - 1e-9
        ):
            return
        self._told[phase] = (0.0, now) if done >= 1 else (done, now)
        if self.live:
            doing, rest = status()
            self._bar.start()
            self._bar.update(self._task, completed=done, description=doing, status=rest)
            self._bar.refresh()
        elif step < 1 or done < 1:
            doing, rest = status()
            self.show(f'{doing}  {done:4.0%}  {rest}'.rstrip())

    def clear(self) -> None:
        """Removes the live line."""
        if self._bar.live.is_started:
            self._bar.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record, if it is for the screen."""
        if record.levelno < logging.ERROR and not _is_shown(record):
            self._count(record.levelno, record.getMessage())
            return
        prefix = f'{record.levelname.lower()}: ' if record.levelno > logging.INFO else ''
        self.show(prefix + record.getMessage())

    def to_log_only(self, text: str, level: int = logging.INFO) -> None:
        """Writes to the log file, as soon as there is one."""
        if self._logger is None:
            self._early.append((level, text))
            return
        record = self._logger.makeRecord(self._logger.name, level, '', 0, text, (), None)
        for handler in self._logger.handlers:
            if handler is not self:
                handler.handle(record)

    def _count(self, level: int, text: str) -> None:
        # What another package will drop one day concerns its callers, not who runs them.
        self.log_only += level == logging.WARNING and 'deprecat' not in text.lower()

    def _warn(self, message, category, filename, lineno, file=None, line=None) -> None:
        """Stands in for `warnings.showwarning`."""
        if Path(filename).is_relative_to(OURS):
            self.show(f'warning: {message}')
        else:
            self._count(logging.WARNING, f'{category.__name__} {message}')
            self.to_log_only(
                f'{filename}:{lineno}: {category.__name__}: {message}', logging.WARNING
            )


class _Lasting:
    """A stream to a reader who may leave: a run outlives its terminal, or ``| head``."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


class _Printed(io.TextIOBase):
    """Stands in for stdout: what other packages print goes to the log file, line by line."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.rest = screen, ''

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split('\n')
        for line in filter(str.strip, lines):
            self.screen.to_log_only(line)
        return len(text)


@contextlib.contextmanager
def screen(verbose: bool = False) -> Iterator[None]:
    """Context in which a :class:`ScreenRunner` shows what a person needs.

    Args:
        verbose: Show all that mmengine and other packages say, instead.
    """
    if verbose:
        yield
        return
    Screen.current = shown = Screen()
    show_warning, warnings.showwarning = warnings.showwarning, shown._warn
    try:
        with contextlib.redirect_stdout(_Printed(shown)):
            yield
    finally:
        shown.clear()
        warnings.showwarning = show_warning
        Screen.current = None


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether it is code of this package that logs, or what is logged is a result."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(LOGGING):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename) if frame else Path()
    return path.is_relative_to(OURS) or path.name == DECIDING or TABLE in record.getMessage()
