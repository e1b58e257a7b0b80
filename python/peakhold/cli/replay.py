"""Push recorded predictions through both sinks.

FILE has JSON lines, plain or gzipped: responses of Roboflow models or of the inference
server, or {"image", "detections": [{"class", "confidence", "xyxy"}]}. Files are read
whole before the first frame is sent; `-`, standard input, is read as it comes.

The API and its key are those of the environment (API_BASE_URL, ROBOFLOW_API_KEY); a
monitor on this machine needs no key. The exit code is 1 if something could not be
delivered.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from peakhold.cli.arguments import name_and_value, rate, whole_seconds
from peakhold.cli.errors import FAILED, INTERRUPTED, CommandError, require

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from peakhold.cli.recording import Frame
    from peakhold.roboflow import Settings

_ANY_KEY = "any"
"""Taken by a monitor on this machine, which looks at no key."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="recording, or - for standard input"
    )
    parser.add_argument(
        "--fps",
        type=rate,
        default=30.0,
        metavar="N",
        help="frames per second; 0 for as fast as possible (30)",
    )
    parser.add_argument(
        "--loop", action="store_true", help="start over at the end, until Ctrl-C"
    )
    parser.add_argument(
        "--api-url", metavar="URL", help="address of the API (API_BASE_URL)"
    )
    parser.add_argument(
        "--frequency",
        type=whole_seconds,
        default=5,
        metavar="SECONDS",
        help="time from one report to the next (5)",
    )
    parser.add_argument(
        "--metadata",
        type=name_and_value,
        default=("source", "peakhold replay"),
        metavar="NAME=VALUE",
        help="metadata of every inference (source=peakhold replay)",
    )
    parser.add_argument(
        "--model-id",
        default="replay/1",
        metavar="ID",
        help="model of lines that name none (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Replay, then print the summary."""
    require("replay", "rich")
    # What is left over of a replay is none of the business of the user's outbox.
    os.environ["PEAKHOLD_DURABILITY"] = "memory"
    from peakhold.cli.metering import MeteredClient
    from peakhold.cli.session import open_player, settle
    from peakhold.cli.summary import print_json, print_summary, summarise
    from peakhold.cli.terminal import progress_bar, working
    from peakhold.roboflow import ApiKey
    from peakhold.roboflow.proxies import is_loopback

    frames, total = _open_frames(arguments)
    settings = _read_settings(arguments.api_url)
    local = is_loopback(settings.api_base_url)
    api_key = settings.api_key or (_ANY_KEY if local else None)
    if api_key is None:
        raise CommandError(
            "no api key: set ROBOFLOW_API_KEY, or replay into `peakhold monitor`, "
            "which needs none"
        )
    client = MeteredClient(settings)
    # Whatever is wrong with address or key shows now, not after the last frame.
    client.get_roboflow_workspace(ApiKey.of(api_key).reveal())
    try:
        player = open_player(
            client, api_key, arguments.frequency, arguments.metadata, "peakhold-replay"
        )
    except ValueError as error:  # the blocks read the environment, too
        raise CommandError(str(error)) from error
    interrupted = False
    bad_line: CommandError | None = None
    with progress_bar("Replaying", total) as progress:
        try:
            player.play(frames, arguments.fps, progress)
        except KeyboardInterrupt:
            interrupted = True
        except CommandError as error:  # of a pipe, after frames were pushed
            bad_line = error
    with working("Delivering what is pending"):
        settled = settle()
    summary = summarise(player, client.ledger, settled)
    (print_json if arguments.json else print_summary)(summary)
    if bad_line is not None:
        raise bad_line
    if interrupted:
        return INTERRUPTED
    return 0 if settled.complete else FAILED


def _open_frames(arguments: argparse.Namespace) -> tuple[Iterable[Frame], int | None]:
    """Return the frames to come, and how many, None if that is not known."""
    from peakhold.cli.recording import STDIN, load_frames, read_frames

    if STDIN not in arguments.files:
        frames = load_frames(arguments.files, arguments.model_id)
        return (_looped(frames), None) if arguments.loop else (frames, len(frames))
    if arguments.files != [STDIN]:
        raise CommandError("standard input (-) cannot be replayed with other files")
    if arguments.loop:
        raise CommandError("standard input (-) cannot be replayed twice: omit --loop")
    return read_frames(STDIN, arguments.model_id), None


def _looped(frames: list[Frame]) -> Iterator[Frame]:
    """Yield frames for ever; an inference id of the recording is used only once."""
    yield from frames
    again = [
        replace(
            frame,
            predictions=tuple(
                prediction.without_id() for prediction in frame.predictions
            ),
        )
        for frame in frames
    ]
    yield from itertools.chain.from_iterable(itertools.repeat(again))


def _read_settings(api_url: str | None) -> Settings:
    from peakhold.delivery import current
    from peakhold.roboflow import Settings

    try:
        settings = Settings.from_environment()
        current()  # reads the environment as well
    except ValueError as error:
        raise CommandError(str(error)) from error
    if settings.offline:
        raise CommandError("OFFLINE_MODE is set, nothing would be sent: unset it")
    if api_url is None:
        return settings
    try:
        return replace(settings, api_base_url=api_url)
    except ValueError as error:
        raise CommandError(f"bad --api-url: {error}") from error
