"""The `peakhold` command, and its subcommands.

Each subcommand is a module of its own, which imports what it needs when it runs, so
that `peakhold --help` is quick and works without the extras.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from peakhold._peakhold import __version__
from peakhold.cli import (
    bench,
    demo,
    doctor,
    env,
    flush,
    monitor,
    outbox,
    replay,
    status,
)
from peakhold.cli.errors import INTERRUPTED, USAGE, one_line
from peakhold.cli.terminal import say
from peakhold.errors import PeakholdError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_COMMANDS = (bench, demo, doctor, env, flush, monitor, outbox, replay, status)
_TERMINATED = 143
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        The exit code: 0 for success; 1 if the command ran and its outcome is bad; 2
        for a mistake in the command or its input, told in one line; 130 after Ctrl-C.
    """
    _prepare_process()
    arguments = _make_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except PeakholdError as error:
        say(f"peakhold {arguments.command}: {one_line(error)}", error=True)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left, `head` for one. What is still buffered
        # must not fail a second time when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with one line, where argparse would print the usage as well."""
        self.exit(USAGE, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="peakhold",
        description="Model Monitoring sinks for high-FPS vision pipelines.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"peakhold {__version__}",
        help="show the version and exit",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for module in _COMMANDS:
        name = module.__name__.rpartition(".")[2]
        summary, _, details = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n{details}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _prepare_process() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Class names may hold what this terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    # Unlike the signal's default this lets servers stop and reports go out.
    sys.exit(_TERMINATED)
