"""Types of command line arguments; argparse turns their errors into one line."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST_PORT = 65_535
_DIGITS = 18


def port(text: str) -> int:
    """Read a TCP port, 0 for any free one."""
    if not text.isascii() or not text.isdigit() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be 0 to {_LAST_PORT}, not {text!r}")
    return int(text)


def rate(text: str) -> float:
    """Read frames per second, 0 for as fast as possible."""
    number = _number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(
            f"must be frames per second, 0 for as fast as possible, not {text!r}"
        )
    return number


def frame_rate(text: str) -> float:
    """Read frames per second, at least 1."""
    number = _number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(
            f"must be frames per second, at least 1, not {text!r}"
        )
    return number


def count(limit: int) -> Callable[[str], int]:
    """Return a type that reads a whole number from 1 to a limit."""

    def read(text: str) -> int:
        # So many digits are no number that anybody means, and int() refuses them.
        digits = text.isascii() and text.isdigit() and len(text) <= _DIGITS
        if not digits or not 1 <= int(text) <= limit:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from 1 to {limit:,}, not {text!r}"
            )
        return int(text)

    return read


def seconds(text: str) -> float:
    """Read a duration above zero."""
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be seconds above 0, not {text!r}")
    return number


def whole_seconds(text: str) -> int:
    """Read a number of seconds, at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of seconds, at least 1, not {text!r}"
        )
    return int(text)


def name_and_value(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    return name, value


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return number
