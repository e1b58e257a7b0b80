"""Deliver what waits in the outbox for api key and address of the environment.

Takes key, address and state directory from the environment, as the sinks do, and what
dead processes left behind: sealed reports, metadata, and windows that were open. What
belongs to a running process is left to it. The exit code is 1 if something is left,
which is told with cause and remedy.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from peakhold.cli.arguments import seconds
from peakhold.cli.errors import FAILED, CommandError
from peakhold.cli.looking import delivery_settings, say_wrapped, status_of
from peakhold.cli.terminal import say
from peakhold.delivery.behind import RATE_VARIABLE, bounded, failing
from peakhold.delivery.settings import METADATA_RATE_VARIABLE
from peakhold.outbox import admin

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from peakhold.delivery.destination import Destination
    from peakhold.delivery.settings import DeliverySettings
    from peakhold.outbox import StateDirectory
    from peakhold.records import DestinationKey
    from peakhold.roboflow import ApiKey, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long to go on (30)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Deliver, and say what is left."""
    from peakhold.outbox import StateDirectory

    delivery = delivery_settings()
    settings, api_key = _reachable(delivery)
    state = StateDirectory(delivery.directory())
    outcome = deliver_what_waits(state, delivery, settings, api_key, arguments.timeout)
    if arguments.json:
        say(json.dumps(outcome))
    else:
        _print(outcome)
    return FAILED if outcome["left"] else 0


def _reachable(delivery: DeliverySettings) -> tuple[Settings, ApiKey | str]:
    """Return how to reach the API and with which key.

    Raises:
        CommandError: The environment says that nothing can, or should, be sent.
    """
    from peakhold.roboflow import Settings

    try:
        settings = Settings.from_environment()
    except ValueError as error:
        raise CommandError(str(error)) from error
    if settings.api_key is None:
        raise CommandError(
            "there is no api key: export ROBOFLOW_API_KEY=..., that of the program "
            "whose reports wait"
        )
    if settings.offline:
        raise CommandError("OFFLINE_MODE is on: unset it to have something sent")
    if delivery.disabled:
        raise CommandError("PEAKHOLD_DISABLED is on: unset it to have something sent")
    return settings, settings.api_key


def deliver_what_waits(
    state: StateDirectory,
    delivery: DeliverySettings,
    settings: Settings,
    api_key: ApiKey | str,
    timeout: float,
) -> dict[str, Any]:
    """Deliver what dead processes left for a key; returns figures, and what is left.

    Args:
        state: Where it waits.
        delivery: How to deliver.
        settings: How to reach the API.
        api_key: The key.
        timeout: Seconds to go on at most.

    Raises:
        OutboxError: There is no outbox, or it cannot be used.
    """
    from peakhold.blocks.adoption import Adoption
    from peakhold.blocks.cache import SHARED
    from peakhold.cli.metering import MeteredClient
    from peakhold.delivery import Dispatcher, Sender

    admin.status(state)  # complains if there is no outbox, or none that can be used
    client = MeteredClient(settings)
    sender = Sender(client, api_key, SHARED, injected=False)
    dispatcher = Dispatcher(state, delivery)
    state.warn_if_exposed(dispatcher.notices)
    # In this order: the flush waits for what the second one makes due.
    Adoption(dispatcher).lend(sender)
    destination = dispatcher.register(sender, try_now=True)
    dispatcher.flush(timeout)
    outcome = {
        "endpoint": sender.destination.endpoint,
        "reports": client.ledger.reports,
        "metadata_requests": client.ledger.metadata_requests,
        **_what_is_left(state, sender.destination),
    }
    why = _why_left(destination, outcome, delivery, timeout)
    return {
        **outcome,
        "cause": None if why is None else why[0],
        "remedy": None if why is None else why[1],
    }


def _what_is_left(state: StateDirectory, destination: DestinationKey) -> dict[str, Any]:
    own = {
        "endpoint": destination.endpoint,
        "api_key_fingerprint": destination.api_key_fingerprint,
        "client": destination.client,
    }
    status = status_of(state)
    rows = status["destinations"]
    mine = [row for row in rows if {name: row[name] for name in own} == own]
    # Parts of windows that are shared are reported by those who share them.
    shared = [
        row for row in status["sharing"] if {name: row[name] for name in own} == own
    ]
    of_others = sum(row["parts"] for row in shared if row["processes"])
    found: Mapping[str, Any] = mine[0] if mine else dict.fromkeys(admin.STATES, 0)
    oldest = found.get("oldest_report")
    return {
        "left": found["pending"] + found["parked"],
        "pending": found["pending"],
        "parked": found["parked"],
        "dead": found["dead"],
        "pending_reports": oldest["reports"] if oldest else 0,
        "of_running_processes": _of_others(state, own) + of_others if mine else 0,
        "of_other_hosts": sum(
            row["parts"]
            for row in shared
            if row["share"] == "redis" and not row["processes"]
        ),
        "for_others": sum(
            row["pending"] + row["parked"] for row in rows if row not in mine
        ),
        "windows": status["windows"]["left"],
        "last_error": found.get("last_error"),
        "behind": found.get("behind"),
    }


def _why_left(
    destination: Destination,
    outcome: Mapping[str, Any],
    delivery: DeliverySettings,
    timeout: float,
) -> tuple[str, str] | None:
    """Return why something is left, and what helps; None if there is no more to say."""
    waiting = outcome["pending"] - outcome["of_running_processes"]
    waiting -= outcome["of_other_hosts"]
    if outcome["parked"]:
        return (
            "the endpoint refuses what is parked, with the last error",
            "put that right and flush again",
        )
    if waiting <= 0:  # what others deliver, and may be behind with
        behind = outcome["behind"]
        return (behind["text"], behind["remedy"]) if behind else None
    if destination.backlog.outage:
        why = failing(None)
        return why.text, f"{why.remedy}. Then flush again"
    if destination.backlog.holds("report") and outcome["pending_reports"]:
        cause, rate, variable = (
            bounded(delivery.rate).text,
            delivery.rate,
            RATE_VARIABLE,
        )
    elif not outcome["pending_reports"]:
        rate, variable = delivery.metadata_rate, METADATA_RATE_VARIABLE
        cause = f"at most {rate:g} requests with metadata a second go out"
    else:
        sent = outcome["reports"] + outcome["metadata_requests"]
        cause = (
            f"{timeout:g} s were too short, in which {sent:,} requests were answered"
        )
        rate, variable = sent / timeout, None
    remedy = "flush again"
    if rate:
        longer = math.ceil(1.2 * waiting / rate) + 1
        remedy = f"flush again, with --timeout {max(longer, math.ceil(timeout))}"
    return cause, remedy + (f" or a greater {variable}" if variable else "")


def _of_others(state: StateDirectory, own: Mapping[str, Any]) -> int:
    """Return how many seals belong to processes that run, other than this one.

    Raises:
        OutboxError: The state directory cannot be used.
    """
    records = [
        record
        for record in admin.listed(state, endpoint=own["endpoint"])
        if record["state"] != "dead" and {name: record[name] for name in own} == own
    ]
    try:
        owners = {record["owner"] for record in records} - {state.owner_id}
        alive = {owner for owner in owners if state.is_alive(owner)}
    except OSError as error:
        raise admin.OutboxError(
            f"{state.path} cannot be used: {error.strerror}; set PEAKHOLD_STATE_DIR to "
            "a directory that can be written and locked"
        ) from error
    return sum(record["seals"] for record in records if record["owner"] in alive)


def _print(outcome: Mapping[str, Any]) -> None:
    say_wrapped(
        f"Delivered to {outcome['endpoint']}: {outcome['reports']:,} reports, "
        f"{outcome['metadata_requests']:,} metadata requests."
    )
    say_wrapped(
        f"Left: {outcome['pending']:,} pending, {outcome['parked']:,} parked"
        if outcome["left"]
        else "Nothing waits any more for this key and address."
    )
    if outcome["of_running_processes"]:
        say_wrapped(
            f"Of these, {outcome['of_running_processes']:,} belong to running "
            "processes, which deliver them."
        )
    if outcome["of_other_hosts"]:
        say_wrapped(
            f"Of these, {outcome['of_other_hosts']:,} are parts of windows that hosts "
            "share by Redis: flush with the program's PEAKHOLD_SHARE, and again after "
            "half a minute, to have them reported or to know that they are."
        )
    if outcome["left"] and outcome["last_error"]:
        say_wrapped(f"Last error: {outcome['last_error']}")
    if outcome["cause"]:
        say_wrapped(f"Cause: {outcome['cause']}.")
        say_wrapped(f"To help: {outcome['remedy']}.")
    if outcome["dead"]:
        say_wrapped(
            f"Dead: {outcome['dead']:,}, refused for good; see `peakhold outbox ls "
            "--state dead`."
        )
    if outcome["for_others"]:
        say_wrapped(
            f"For other keys, addresses or clients: {outcome['for_others']:,}; see "
            "`peakhold status`."
        )
    if outcome["windows"]:
        say_wrapped(
            "Open windows that dead processes left for other keys, addresses or "
            f"clients, or that cannot be read: {outcome['windows']:,}."
        )
