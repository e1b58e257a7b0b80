"""List, show, retry, drop or export the records of the outbox.

A record is a report or some metadata that was not delivered yet. Processes may go on
using the outbox meanwhile. No network and no api key is needed, and none is shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from peakhold.cli.errors import CommandError
from peakhold.cli.looking import age, name_of, say_wrapped, state_directory
from peakhold.cli.terminal import counting, say
from peakhold.outbox import admin
from peakhold.texts import printable

if TYPE_CHECKING:
    import argparse

    from peakhold.outbox import StateDirectory

_TOLD = ("kind", "state", "reason", "attempts", "seals", "created", "bytes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=type(parser)
    )
    ls = actions.add_parser("ls", help="list records, the oldest first")
    _add_filters(ls)
    ls.add_argument("--json", action="store_true", help="print them as one JSON array")
    show = actions.add_parser("show", help="show a record with its body")
    show.add_argument("id", metavar="ID", help="of the record, as listed")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    retry = actions.add_parser(
        "retry",
        help="have parked and dead records tried again",
        description="A running process tries them within 15 seconds, and else the next "
        "one that starts, or `peakhold flush`.",
    )
    _add_choice(retry)
    drop = actions.add_parser(
        "drop", help="give records up for good; they are counted as dropped by hand"
    )
    _add_choice(drop)
    export = actions.add_parser(
        "export", help="print records with their bodies, as JSON lines"
    )
    _add_filters(export)


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions."""
    actions = {
        "ls": _ls,
        "show": _show,
        "retry": _retry,
        "drop": _drop,
        "export": _export,
    }
    actions[arguments.action](state_directory(), arguments)
    return 0


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=admin.STATES, help="only those")
    parser.add_argument("--endpoint", metavar="URL", help="only those that go there")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", help="of a record, as listed")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--state", choices=admin.STATES, help="all of those")
    which.add_argument("--all", action="store_true", help="every record")


def _ls(state: StateDirectory, arguments: argparse.Namespace) -> None:
    # In this order: a window that is just being committed is told twice, not left out.
    left = admin.windows(state)["left"]
    records = admin.listed(
        state, record_state=arguments.state, endpoint=arguments.endpoint
    )
    if arguments.json:
        say(json.dumps(records))
        return
    for record in records:
        # The id first and whole, to be copied; as wide as 60 columns.
        say(
            f"{printable(record['id']):<32}  {record['kind']:<8}  "
            f"{record['state']:<7}  {age(record['age'])}"
        )
        if record["last_error"]:
            say_wrapped(f"{record['attempts']} tried: {record['last_error']}", "  ")
    if _filtered(arguments):
        if not records:
            say("There is no such record.")
    elif left:
        say_wrapped(
            f"Open windows that dead processes left to the next: {left:,}. They are "
            "not in the outbox yet, see `peakhold status`."
        )
    elif not records:
        say("Nothing waits.")


def _filtered(arguments: argparse.Namespace) -> bool:
    return arguments.state is not None or arguments.endpoint is not None


def _show(state: StateDirectory, arguments: argparse.Namespace) -> None:
    record = admin.shown(state, arguments.id)
    if arguments.json:
        say(json.dumps(record))
        return
    say(f"Record {printable(record['id'])}")
    say_wrapped(f"to: {name_of(record)}", "  ")
    for name in _TOLD:
        if record[name] is not None:
            say_wrapped(f"{name}: {record[name]}", "  ")
    say_wrapped(f"age: {age(record['age'])}", "  ")
    if record["last_error"]:
        say_wrapped(f"last error: {record['last_error']}", "  ")
    if record["body"] is None:
        say("Its body is damaged; drop it.")
    else:
        say(json.dumps(record["body"], indent=2))


def _retry(state: StateDirectory, arguments: argparse.Namespace) -> None:
    again, chosen = admin.retry(
        state,
        _chosen(state, arguments),
        record_state=arguments.state,
        progress=counting("Retrying"),
    )
    say(f"To be tried again: {again:,}; pending as they were: {chosen - again:,}.")


def _drop(state: StateDirectory, arguments: argparse.Namespace) -> None:
    dropped = admin.drop(
        state,
        _chosen(state, arguments),
        record_state=arguments.state,
        progress=counting("Dropping"),
    )
    say(f"Dropped: {dropped:,}.")


def _export(state: StateDirectory, arguments: argparse.Namespace) -> None:
    for line in admin.exported(
        state, record_state=arguments.state, endpoint=arguments.endpoint
    ):
        say(line)


def _chosen(state: StateDirectory, arguments: argparse.Namespace) -> list[str] | None:
    """Return the ids of the records that are meant, all of which there are.

    None stands for all, or for all of a state.

    Raises:
        CommandError: No record is meant, or one that there is not.
    """
    action, ids = arguments.action, list(dict.fromkeys(arguments.ids))
    if bool(ids) == bool(arguments.all or arguments.state):
        raise CommandError(
            f"say which records to {action}: their ids, as `peakhold outbox ls` lists "
            "them, or --state, or --all"
        )
    if unknown := admin.missing(state, ids):
        raise CommandError(
            f"nothing was changed: there is no record {', '.join(unknown)} in "
            f"{state.path}; `peakhold outbox ls` lists those that wait"
        )
    return ids or None
