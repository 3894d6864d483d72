"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading


class Interrupt:
    """Context in which Ctrl-C and SIGTERM set a flag; a second Ctrl-C acts at once.

    Attributes:
        asked: Whether one arrived.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
