"""Texts from outside: the characters of a value, and how they may be shown."""

from __future__ import annotations


def text_of(value: object) -> str:
    """Return a value as a plain ``str``.

    A subclass of ``str`` counts as its own characters, as it does in JSON, whatever its
    ``__str__`` returns: a member of ``class Status(str, Enum)`` is its value.
    """
    return str.__str__(value if isinstance(value, str) else str(value))


def printable(text: str) -> str:
    """Return a text that cannot move the cursor, colour a terminal or begin a line.

    Control characters, and whatever else ``str.isprintable`` excludes, are escaped as
    ``repr`` does. For text of a server, a file or another library, before it gets into
    a message, a log or a terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in text
    )
