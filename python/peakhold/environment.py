"""Environment variables, read as what they are to be."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_Word = TypeVar("_Word", bound=str)
_Default = TypeVar("_Default", bound="str | None")

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_WHOLE_NUMBER = re.compile(r"0*[1-9][0-9]{0,8}", re.ASCII)


class Environment:
    """Checked values of environment variables; an empty one is the same as none.

    What cannot be used is a ``ValueError`` that names the variable and the remedy. It
    shows no value: that may be a secret which was meant for another variable.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """Read from ``variables``; None for those of the process."""
        self._variables = os.environ if variables is None else variables

    def text(self, name: str) -> str | None:
        """Return a text without the blanks around it, None for an empty one."""
        return self._variables.get(name, "").strip() or None

    def number(
        self, name: str, default: float, unit: str, *, least: float | None = None
    ) -> float:
        """Return a finite number of at least ``least``; above 0 if that is None."""
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        fits = value > 0 if least is None else value >= least
        if fits and math.isfinite(value):
            return value
        bound = "above 0" if least is None else f"from {least:g} on"
        raise ValueError(f"{name} must be a number of {unit} {bound}, like {default:g}")

    def whole_number(self, name: str, default: int) -> int:
        """Return a whole number of at least 1."""
        text = self.text(name)
        if text is None:
            return default
        if _WHOLE_NUMBER.fullmatch(text):
            return int(text)
        raise ValueError(
            f"{name} must be a whole number of at least 1, like {default}, and of at "
            "most nine digits"
        )

    def switch(self, name: str, *, default: bool) -> bool:
        """Return whether something is on."""
        text = (self.text(name) or str(default)).lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise ValueError(f"{name} must be True or False (also on, off, yes, no, 1, 0)")

    def choice(
        self, name: str, words: Collection[_Word], default: _Default
    ) -> _Word | _Default:
        """Return one of some words of small letters, however it is capitalised."""
        text = self.text(name)
        if text is None:
            return default
        for word in words:
            if word == text.lower():
                return word
        raise ValueError(f"{name} must be one of {', '.join(words)}")
