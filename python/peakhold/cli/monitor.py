"""Run a Model Monitoring endpoint on this machine.

It takes the reports and metadata of the sinks, keeps them in SQLite, answers the
statistics call and shows a dashboard. Point the sinks at it by the two variables that
it prints. Ctrl-C stops it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peakhold.cli.arguments import port
from peakhold.cli.errors import CommandError, require
from peakhold.cli.terminal import say

if TYPE_CHECKING:
    import argparse

    from peakhold.monitor.server import MonitorServer

_EXPORT = "set" if os.name == "nt" else "export"
"""What sets a variable in a shell, and for the programs that it starts."""
_WAKE_INTERVAL = 0.5
"""Seconds. On Windows a wait without a time-out cannot be interrupted by Ctrl-C."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (%(default)s)"
    )
    parser.add_argument(
        "--port", type=port, default=0, help="port to listen on; 0 takes a free one (0)"
    )
    parser.add_argument(
        "--data", metavar="FILE", help="SQLite file to keep everything in (a temporary)"
    )
    parser.add_argument(
        "--workspace", default="local", help="name of the workspace (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    require("monitor", "starlette", "uvicorn", "sqlite3")
    from peakhold.monitor.server import MonitorServer

    try:
        server = MonitorServer(
            arguments.host, arguments.port, arguments.data, arguments.workspace
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    with server:
        data = arguments.data or "temporary, gone when the monitor stops"
        say(f"Peakhold monitor for workspace {arguments.workspace!r}")
        say(f"  dashboard   {server.dashboard_url}")
        say(f"  data        {data}")
        say("Point the sinks at it:")
        say(f"  {_EXPORT} API_BASE_URL={server.url}")
        say(f"  {_EXPORT} ROBOFLOW_API_KEY=any")
        say("Ctrl-C stops it.")
        wait_for_interrupt(server)
    return 0


def wait_for_interrupt(server: MonitorServer) -> None:
    """Wait until Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        CommandError: The server ended by itself.
    """
    while not server.wait(_WAKE_INTERVAL):
        pass
    raise CommandError("the monitor ended by itself; the log above says why")
