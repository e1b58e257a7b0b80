"""Texts from outside: the characters of a value, and how they may be shown."""

from __future__ import annotations


def text_of(value: object) -> str:
    """Return a value as a plain ``str``.

    A subclass of ``str`` counts as its own characters, as it does in JSON, whatever its
    ``__str__`` returns: a member of ``class Status(str, Enum)`` is its value.
    """
    return str.__str__(value if isinstance(value, str) else str(value))
