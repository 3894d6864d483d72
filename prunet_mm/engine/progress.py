"""A bar with the time left, for tools that take a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar('Item')


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left on stderr.

    Gives what to call with the part done, 0 to 1, and, where it is no longer ``task``, with what is
    being done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:3.0f} %, left'),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # Elsewhere than in a terminal rich leaves an empty line.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        job = bar.add_task(task, total=1.0)
        yield lambda done, doing=task: bar.update(job, completed=done, description=doing)


def with_progress(items: Iterable[Item], count: int, task: str) -> Iterator[Item]:
    """Yields the items, with a bar beside them."""
    with progress_bar(task) as progress:
        for done, item in enumerate(items):
            progress(done / count)
            yield item
