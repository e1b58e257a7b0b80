"""Mistakes of the person at the terminal, told in one line with the remedy."""

from __future__ import annotations

import importlib

from peakhold.errors import PeakholdError
from peakhold.outbox import schema
from peakhold.texts import printable

USAGE = 2
"""Exit code of a mistake in the command, its input or its surroundings."""

FAILED = 1
"""Exit code of a command that ran, and whose outcome is not what it should be."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell gives it."""


class CommandError(PeakholdError):
    """The command cannot go on; the text is one line that says what to do about it."""


def require(command: str, *modules: str, extra: str = "monitor") -> None:
    """Check that the modules of an extra are installed.

    Args:
        command: Who needs them.
        modules: Their names.
        extra: The extra that brings them.

    Raises:
        CommandError: One is not; the text has the command that installs it.
    """
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        if error.name == "_sqlite3":  # which no installer brings
            schema.check_sqlite()
        raise CommandError(
            f"`peakhold {command}` needs {error.name}, which is not installed: "
            f'pip install "peakhold[{extra}]"'
        ) from error


def one_line(text: object) -> str:
    """Return a text on one line, its control characters made visible."""
    return printable(" ".join(str(text).split()))
