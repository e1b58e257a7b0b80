"""Show both sinks at work, with nothing to configure.

Starts a monitor on this machine, replays the detections of two models that ship with
the package through both sinks, reads the statistics back over the API and compares
them with what was sent. The exit code is 1 if they disagree.

With --chaos a server that fails takes the monitor's place, and the process with the
sinks is killed several times; the exit code is 1 if anything was lost.

Nothing leaves the machine; API_BASE_URL, ROBOFLOW_API_KEY and the other variables of
the sinks are not looked at.
"""

from __future__ import annotations

import itertools
import math
import os
from datetime import datetime, timezone
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from peakhold.cli.arguments import rate, seconds
from peakhold.cli.errors import FAILED, CommandError, require
from peakhold.cli.monitor import wait_for_interrupt
from peakhold.cli.terminal import say

if TYPE_CHECKING:
    import argparse

    from peakhold.cli.recording import Frame
    from peakhold.monitor.server import MonitorServer

RECORDING = "recordings/cascades.jsonl.gz"
_WORKSPACE = "demo"
_API_KEY = "demo"
_FREQUENCY = 1
"""Seconds from one report to the next, so that ten seconds show ten."""

_FIELD = ("source", "peakhold demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave monitor and dashboard running until Ctrl-C",
    )
    parser.add_argument(
        "--chaos",
        action="store_true",
        help="fail requests and kill the process, and see that nothing is lost",
    )
    parser.add_argument(
        "--seconds", type=seconds, default=10.0, help="how long to replay (10)"
    )
    parser.add_argument(
        "--fps",
        type=rate,
        default=1000.0,
        metavar="N",
        help="frames per second; 0 for as fast as possible (1000)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Replay, read back, compare."""
    if arguments.chaos:
        return _run_chaos(arguments)
    require("demo", "rich", "starlette", "uvicorn", "sqlite3")
    from peakhold.monitor.server import MonitorServer

    _forget_environment()
    with MonitorServer(workspace=_WORKSPACE) as server:
        agreed = _show(server, arguments.fps, arguments.seconds)
        if arguments.keep:
            say("The dashboard stays until Ctrl-C.")
            wait_for_interrupt(server)
        say(
            f"The dashboard was at {server.dashboard_url}; "
            "`peakhold demo --keep` leaves it running."
        )
    return 0 if agreed else FAILED


def _run_chaos(arguments: argparse.Namespace) -> int:
    if arguments.keep:
        raise CommandError("--chaos has no dashboard that --keep could leave running")
    require("demo --chaos", "rich", "sqlite3", extra="cli")
    from peakhold.cli.chaos import survive

    return 0 if survive(arguments.fps, arguments.seconds) else FAILED


def _show(server: MonitorServer, fps: float, seconds: float) -> bool:
    """Replay into a monitor, print what it stored; return whether that is right."""
    from peakhold.cli.metering import MeteredClient
    from peakhold.cli.readback import Stored, disagreements, get_statistics
    from peakhold.cli.recording import load_frames
    from peakhold.cli.session import open_player, settle
    from peakhold.cli.summary import print_summary, summarise
    from peakhold.cli.terminal import progress_bar, working
    from peakhold.roboflow import Settings

    with as_file(files("peakhold.cli").joinpath(RECORDING)) as path:
        frames = load_frames([str(path)], default_model="")
    client = MeteredClient(Settings(api_base_url=server.url))
    player = open_player(client, _API_KEY, _FREQUENCY, _FIELD, "peakhold-demo")
    rate = f"{fps:,g} frames per second" if fps else "As many frames as possible"
    say(f"{rate} for {seconds:g} s, two models, both sinks")
    say(f"Dashboard: {server.dashboard_url}")
    start = datetime.now(timezone.utc)
    replayed = itertools.islice(itertools.cycle(frames), _count(fps, seconds))
    try:
        with progress_bar("Replaying", fps * seconds or None) as progress:
            player.play(replayed, fps, progress, seconds)
    finally:
        # After Ctrl-C as well: the monitor that takes what is pending is about to go.
        with working("Delivering what is pending"):
            settled = settle()
    summary = summarise(player, client.ledger, settled)
    statistics = get_statistics(
        server.url, _WORKSPACE, _API_KEY, start, datetime.now(timezone.utc)
    )
    overview = server.store.overview(_WORKSPACE)
    stored = Stored(
        statistics, overview.reports, sum(row.inferences for row in overview.metadata)
    )
    problems = disagreements(
        stored,
        client.ledger,
        _peaks(frames, player.tally.frames),
        summary["predictions"],
    )
    if not settled.complete:
        lost = settled.counts.sealed - settled.counts.delivered
        problems.append(
            f"{lost:,} reports and metadata requests were not delivered, and those "
            "that were not sealed yet"
        )
    _print_statistics(server.url, statistics)
    say("A report holds each class once: its most confident detection of that second.")
    print_summary(summary)
    for problem in problems:
        say(f"peakhold demo: {problem}", error=True)
    if not problems:
        say(
            f"What was read back is what was sent. Reports: {stored.reports:,}; "
            f"inferences with metadata: {stored.metadata_ids:,}."
        )
    return not problems


def _count(fps: float, seconds: float) -> int | None:
    return math.ceil(fps * seconds) if fps else None


def _peaks(frames: list[Frame], replayed: int) -> dict[tuple[str, str], float]:
    """Return the highest confidence of each class in the frames that were replayed."""
    from peakhold.cli.predictions import DetectionPrediction

    peaks: dict[tuple[str, str], float] = {}
    for prediction in itertools.chain(*(f.predictions for f in frames[:replayed])):
        if isinstance(prediction, DetectionPrediction):
            project = prediction.model_id.partition("/")[0]
            rows = zip(prediction.class_name, prediction.confidence, strict=True)
            for class_name, confidence in rows:
                key = (project, str(class_name))
                peaks[key] = max(peaks.get(key, 0.0), float(confidence))
    return peaks


def _print_statistics(url: str, statistics: dict[str, Any]) -> None:
    from peakhold.cli.terminal import print_table

    print_table(
        f"Read back from {url}/{_WORKSPACE}/inference-stats",
        ("model", "class", ">inferences", ">avg confidence", ">max confidence"),
        [
            (
                row["model_name"],
                row["predicted_class"],
                f"{row['num_inferences']:,}",
                f"{row['avg_confidence']:.4f}",
                f"{row['max_confidence']:.4f}",
            )
            for row in statistics["inference_stats"]
        ],
    )


def _forget_environment() -> None:
    """Drop the variables that the library reads by itself; settings are the demo's."""
    for name in [name for name in os.environ if name.startswith("PEAKHOLD_")]:
        del os.environ[name]
    os.environ["PEAKHOLD_DURABILITY"] = "memory"  # not the outbox of the user
