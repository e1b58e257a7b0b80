"""Print the variables that put peakhold into the workflows of the host found here.

    eval "$(peakhold env)"                    in a shell
    docker run $(peakhold env --docker) ...   for a container

Plugins and patterns that are set already stay. The host is looked for, not imported.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from peakhold.cli.errors import CommandError
from peakhold.cli.terminal import say
from peakhold.hosts import CONFIGURE_CALL, PLUGIN, find_host, variables

if TYPE_CHECKING:
    import argparse

    from peakhold.hosts import Host

_NO_HOST = (
    "no host of Roboflow workflows is installed here: pip install inference, or "
    "roboflow-workflows, into this environment"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--docker", action="store_true", help="print them as arguments of `docker run`"
    )
    formats.add_argument(
        "--json", action="store_true", help="print host and variables as JSON"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what the host reads, or the call that a host without variables needs."""
    host = find_host()
    if host is None and not arguments.docker:
        raise CommandError(_NO_HOST)
    if arguments.json:
        say(json.dumps(_described(host)))
    elif arguments.docker:
        _print_for_docker(host)
    else:
        _print_for_shell(host)
    return 0


def _described(host: Host | None) -> dict[str, object]:
    reads = host is not None and host.reads_environment
    return {
        "host": asdict(host) if host else None,
        "variables": variables(os.environ) if reads else {},
        "call": None if reads else CONFIGURE_CALL,
    }


def _print_for_docker(host: Host | None) -> None:
    # The host runs in the image; the servers' images hold inference.
    if host is None:
        say("no host here; these are the variables of inference", error=True)
    elif not host.reads_environment:
        say(
            f"{host} is here, which needs {CONFIGURE_CALL} instead; these are the "
            "variables of inference",
            error=True,
        )
    # A container has the variables it is given, whatever is set here.
    settings = (f"--env {name}={value}" for name, value in variables({}).items())
    say(" ".join(settings))


def _print_for_shell(host: Host | None) -> None:
    if host is not None and host.reads_environment:
        for name, value in variables(os.environ).items():
            say(f"export {name}={shlex.quote(value)}")
        return
    # As comments: a shell that evaluates them does nothing.
    say(f"# {host} reads no variable for this. In the program, before anything of")
    say("# roboflow_workflows is imported:")
    say(f"#   import {PLUGIN}")
    say(f"#   {CONFIGURE_CALL}")
