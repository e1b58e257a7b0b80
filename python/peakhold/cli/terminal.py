"""What the commands print: tables on standard output, progress on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console

_REFRESH = 0.1
"""Seconds between two pictures of the progress bar."""
_INTERVAL = 2.0
"""Seconds between two lines that say how far something is."""


def say(line: str, *, error: bool = False) -> None:
    """Print a line at once, on standard error if it is one."""
    print(line, file=sys.stderr if error else sys.stdout, flush=True)


class Progress(Protocol):
    """Told after every frame how many there have been."""

    def __call__(self, frames: int, /) -> None:
        """Take the number of frames in."""


def print_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Print a table; the columns after the first that hold numbers are right-aligned.

    Args:
        title: What it shows.
        headings: One per column; one that starts with `>` is of a column of numbers.
        rows: Their cells, printed as text.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=any(heading.strip(">") for heading in headings),
    )
    for heading in headings:
        table.add_column(
            heading.lstrip(">"),
            justify="right" if heading.startswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        # As Text: what looks like markup in a class name is not.
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    _console().print(table)


def counting(what: str) -> Callable[[int, int], None]:
    """Return what says how far something is, which may be called often.

    It is said on standard error, every two seconds.

    Args:
        what: What is going on: "Dropping".
    """
    due = time.monotonic() + _INTERVAL

    def progress(done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _INTERVAL
            say(f"{what}: {done:,} of {total:,} records", error=True)

    return progress


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Progress]:
    """Show a progress bar on standard error, if that is a terminal.

    The bar is drawn between frames by the thread that counts them: a thread of its own
    would take its turns in the middle of what is being timed.

    Args:
        description: What is going on.
        total: Frames to come; None if that is not known.
    """
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda _frames: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} frames"),
    )
    with Bar(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(description, total=total)
        due = 0.0

        def show(frames: int) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due:
                due = now + _REFRESH
                bar.update(task, completed=frames, refresh=True)

        yield show


@contextmanager
def working(description: str) -> Iterator[None]:
    """Say on standard error what is waited for, if that is a terminal."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(description):
        yield


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    class LoudConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich would exit with 1 here, which means something else to our callers.
            raise BrokenPipeError

    return LoudConsole(stderr=stderr)
