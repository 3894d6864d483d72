"""Work in a process of its own, which neither Ctrl-C nor its own end takes anything down with."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from typing import Any

from prunet_mm.errors import PrunetError, one_line


def in_a_process(function: Callable, *args: Any) -> Any:
    """Calls a function in a fresh process, since what a process did before changes what it costs.

    Ctrl-C reaches this process alone, which ends the other.

    Args:
        function: Of a module; it, the arguments and what it returns are pickled.
        args: What it is called with.

    Raises:
        PrunetError: The function raised an error, whose kind and text this has, or its process
            died, for instance since there was no memory for it.
        OSError: No process can be started.
    """
    context = get_context('spawn')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, function, args))
    with _deaf_children():
        process.start()
    theirs.close()
    try:
        worked, result = ours.recv()
    except EOFError:
        raise PrunetError('the process that was to do it has died') from None
    finally:
        process.kill()
        process.join()
    if not worked:
        raise PrunetError(result)
    return result


def _work(pipe: Any, function: Callable, args: tuple) -> None:
    try:
        result = True, function(*args)
    except PrunetError as error:
        result = False, str(error)
    except Exception as error:  # of whatever library it runs
        result = False, one_line(error)
    pipe.send(result)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Has processes that are started meanwhile ignore Ctrl-C, from their first line on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
