"""What the commands that look at an outbox have in common."""

from __future__ import annotations

import shutil
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from peakhold.cli.errors import CommandError, one_line
from peakhold.cli.terminal import say
from peakhold.delivery.behind import plain, seen_from_outside
from peakhold.delivery.settings import DeliverySettings
from peakhold.environment import Environment
from peakhold.outbox import StateDirectory, admin

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def state_directory() -> StateDirectory:
    """Return the state directory that the environment names; it may not exist.

    Raises:
        CommandError: A variable cannot be used.
    """
    return StateDirectory(delivery_settings().directory())


def delivery_settings() -> DeliverySettings:
    """Return how the environment wants reports delivered.

    Raises:
        CommandError: A variable cannot be used.
    """
    try:
        return DeliverySettings.from_environment()
    except ValueError as error:
        raise CommandError(str(error)) from error


def status_of(state: StateDirectory) -> dict[str, Any]:
    """Return ``admin.status``, and of each destination why it is behind, if it is.

    With ``OFFLINE_MODE`` on reports are to wait, and no destination is behind.

    Raises:
        OutboxError: There is no outbox, or it cannot be used.
    """
    offline = False
    with suppress(ValueError):  # which those say who use it
        offline = Environment().switch("OFFLINE_MODE", default=False)
    found = admin.status(state)
    for row in found["destinations"]:
        row["behind"] = plain(None if offline else seen_from_outside(row, state))
    return found


def age(seconds: float | None) -> str:
    """Return a duration in its largest whole unit."""
    if seconds is None:
        return "-"
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length):,} {unit}"
    return f"{int(seconds)} s"


def name_of(destination: Mapping[str, Any]) -> str:
    """Return a destination in words: where, with which key, and by whose client."""
    words = f"{destination['endpoint']} with key {destination['api_key_fingerprint']}"
    client = destination["client"]
    return f"{words} by {client}" if client else words


def say_wrapped(text: str, indent: str = "") -> None:
    """Print a text on as many lines of the terminal as it takes; no word is broken."""
    lines = textwrap.wrap(
        one_line(text),
        shutil.get_terminal_size().columns,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        say(line)
