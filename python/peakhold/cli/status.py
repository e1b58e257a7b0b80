"""Show what waits in the outbox, and what became of everything else.

Figures are those of all processes that share the outbox, which may be running. No
network and no api key is needed. The exit code is 1 if something needs a person:
records are parked or dead, a destination falls behind, or the figures do not add up.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from peakhold.cli.errors import FAILED
from peakhold.cli.looking import (
    age,
    name_of,
    say_wrapped,
    state_directory,
    status_of,
)
from peakhold.cli.terminal import say
from peakhold.outbox import admin

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_OVERDUE = 60.0
"""Seconds after which a part waits for more than a busy process."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print where everything stands."""
    found = status_of(state_directory())
    counts = found["counts"]
    troubled = counts["parked"] or counts["dead"] or found["unaccounted"]
    behind = any(row["behind"] for row in found["destinations"])
    behind |= any(row["overdue"] > _OVERDUE for row in found["sharing"])
    if arguments.json:
        say(json.dumps(found))
    else:
        _print(found)
    return FAILED if troubled or behind else 0


def conservation(counts: Mapping[str, Any]) -> str:
    """Return the equation that holds as long as nothing is lost."""
    dropped = sum(counts["dropped"].values())
    parts = [
        f"{name} {counts[name]:,}"
        for name in ("delivered", "pending", "parked", "dead")
    ]
    return f"sealed {counts['sealed']:,} = {' + '.join(parts)} + dropped {dropped:,}"


def _print(found: Mapping[str, Any]) -> None:
    counts, windows = found["counts"], found["windows"]
    say(f"Outbox in {found['state_directory']}")
    say_wrapped(conservation(counts))
    if counts["dropped"]:
        reasons = [f"{reason} {seals:,}" for reason, seals in counts["dropped"].items()]
        say_wrapped(f"dropped: {', '.join(reasons)}")
    if windows["running"] or windows["left"]:
        say_wrapped(
            f"windows and metadata: {windows['running']:,} of running processes, "
            f"{windows['left']:,} that dead ones left to the next"
        )
    for destination in found["destinations"]:
        _print_destination(destination)
    for window in found["sharing"]:
        _print_shared(window)
    if windows["left"]:
        say_wrapped(
            "What is left is delivered by the next process with the same API key, "
            "address and client, or by `peakhold flush` if it is peakhold's own client."
        )
    elif not found["destinations"]:
        say("Nothing waits.")
    if counts["parked"] or counts["dead"]:
        say_wrapped(
            "Parked and dead records need you: see `peakhold outbox ls`, put the cause "
            "right, then `peakhold outbox retry`, or drop."
        )
    if found["unaccounted"]:
        say_wrapped(
            f"The figures do not add up, by {found['unaccounted']:,}: see `peakhold "
            "doctor`."
        )


def _print_shared(window: Mapping[str, Any]) -> None:
    feed = "" if window["feed"] is None else f", feed {window['feed']}"
    say("")
    say_wrapped(
        f"Shared window {window['aggregator_key']}{feed}, every "
        f"{window['frequency']:,} s, to {name_of(window)}"
    )
    ends = datetime.fromtimestamp(window["ends_at"], timezone.utc)
    say_wrapped(
        f"shared by {window['share']}; running processes of this host: "
        f"{window['processes']:,}; epoch "
        f"{window['epoch']} ends at {ends:%H:%M:%S} UTC",
        "  ",
    )
    waiting = f"parts that wait {window['parts']:,}, that came late {window['late']:,}"
    if window["there"]:
        waiting += (
            f"; Redis has {window['there']:,}, which may be in a report of another host"
        )
    if window["overdue"] > _OVERDUE:
        waiting += (
            f"; one is due for {age(window['overdue'])}, and is reported by the next "
            "process with the same API key, address and client"
        )
    say_wrapped(waiting, "  ")


def _print_destination(destination: Mapping[str, Any]) -> None:
    say("")
    say_wrapped(f"To {name_of(destination)}")
    states = [f"{state} {destination[state]:,}" for state in admin.STATES]
    if destination["oldest_age"] is not None:
        states[-1] += f"; the oldest waits for {age(destination['oldest_age'])}"
    say_wrapped(", ".join(states), "  ")
    if destination["last_error"]:
        say_wrapped(f"last error: {destination['last_error']}", "  ")
    if behind := destination["behind"]:
        waited = age(destination["oldest_report"]["age"])
        say_wrapped(
            f"behind: the oldest report waits for {waited}; {behind['text']}", "  "
        )
        say_wrapped(f"to help: {behind['remedy']}", "  ")
