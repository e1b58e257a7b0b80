"""Time peakhold against a plain-Python aggregator, on this machine.

Both take the same frames, at the same rate, one after the other: peakhold's sink, and
an aggregator as one writes it in Python, which keeps the frames and walks all their
detections when the window ends. The table shows how long a frame takes in each, and
--plot draws it over time. With --soak, peakhold takes frames with masks, and memory is
shown over time.

Reports end in this process: nothing is sent, and neither the variables of the sinks
nor their state on this machine are looked at. The exit code is 1 if a report is not
what the frames say.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peakhold.cli.arguments import count, frame_rate, seconds, whole_seconds
from peakhold.cli.errors import FAILED, CommandError, require
from peakhold.cli.terminal import say

if TYPE_CHECKING:
    import argparse

    from peakhold.cli.bench.contenders import Contender
    from peakhold.cli.bench.frames import FrameSource
    from peakhold.cli.bench.load import Load
    from peakhold.cli.bench.measuring import Measured

_WINDOW_LIMIT = 5_000_000
"""Detections that the plain-Python aggregator may keep: about a gigabyte."""

_FRAME_OVERHEAD = 20
"""Detections whose memory the objects of a frame take."""

_FRAMES_LIMIT = 10_000_000
"""Frame times that are kept: 16 bytes each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--detections",
        type=count(10_000),
        default=100,
        metavar="N",
        help="detections of a frame (%(default)s)",
    )
    parser.add_argument(
        "--classes",
        type=count(1_000),
        default=20,
        metavar="N",
        help="classes they are of (%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=count(64),
        default=1,
        metavar="N",
        help="threads that observe at once (%(default)s)",
    )
    parser.add_argument(
        "--fps",
        type=frame_rate,
        default=500.0,
        metavar="N",
        help="frames per second of each thread (500)",
    )
    parser.add_argument(
        "--frequency",
        type=whole_seconds,
        default=1,
        metavar="SECONDS",
        help="time from one report to the next (%(default)s)",
    )
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument(
        "--seconds",
        type=seconds,
        default=5.0,
        help="how long each of the two takes frames (5)",
    )
    lengths.add_argument(
        "--soak",
        type=seconds,
        metavar="SECONDS",
        help="show memory over that time instead",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.svg",
        help="draw the frame times over time, as SVG",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, then print and draw."""
    require("bench", "rich", extra="cli")
    from peakhold.cli.bench.load import Load
    from peakhold.cli.bench.surroundings import own_surroundings

    load = Load(
        detections=arguments.detections,
        classes=arguments.classes,
        threads=arguments.threads,
        fps=arguments.fps,
        frequency=arguments.frequency,
        seconds=arguments.soak or arguments.seconds,
    )
    _check_load(load, keeps_frames=arguments.soak is None)
    if arguments.plot is not None:
        _check_plot(arguments.plot, soak=arguments.soak is not None)
    with own_surroundings():
        if arguments.soak is not None:
            code = _soak(load, as_json=arguments.json)
        else:
            code = _compare(load, arguments.plot, as_json=arguments.json)
    if load.frequency >= load.seconds:
        say(
            f"peakhold bench: no window ended within {load.seconds:g} s: lower "
            "--frequency or raise the seconds to see what that costs",
            error=True,
        )
    return code


def _compare(load: Load, plot: Path | None, *, as_json: bool) -> int:
    from peakhold.cli.bench.agreement import disagreements
    from peakhold.cli.bench.contenders import PeakholdContender, PlainContender
    from peakhold.cli.bench.frames import FrameSource
    from peakhold.cli.bench.plot import write_plot
    from peakhold.cli.bench.results import print_json, print_results, summarise

    source = FrameSource(load.detections, load.classes)
    measured: dict[str, Measured] = {}
    problems: dict[str, list[str]] = {}
    for contender in (PeakholdContender(), PlainContender()):
        measured[contender.name] = _measure(contender, source, load)
        problems[contender.name] = disagreements(
            contender.reports, measured[contender.name], source
        )
    if plot is not None:
        write_plot(plot, load, measured)
    results = summarise(load, measured, problems)
    if as_json:
        print_json(results)
    else:
        print_results(results)
        if plot is not None:
            say(f"Frame times over time: {plot}")
    for name, texts in problems.items():
        for text in texts:
            say(f"peakhold bench: {name}: {text}", error=True)
    return FAILED if any(problems.values()) else 0


def _measure(contender: Contender, source: FrameSource, load: Load) -> Measured:
    from peakhold.cli.bench.measuring import measure
    from peakhold.cli.terminal import progress_bar

    try:
        with progress_bar(f"Timing {contender.name}", load.frames) as progress:
            measured = measure(contender, source, load, progress)
    finally:
        # After Ctrl-C as well: what is pending belongs to surroundings that go away.
        contender.finish()
    if not measured.frames:
        raise CommandError("the time was over before the first frame: raise --seconds")
    return measured


def _soak(load: Load, *, as_json: bool) -> int:
    from peakhold.cli.bench.results import print_json
    from peakhold.cli.bench.soak import print_soak, soak

    results: dict[str, Any] = soak(load, live=not as_json)
    (print_json if as_json else print_soak)(results)
    return 0


def _check_load(load: Load, *, keeps_frames: bool) -> None:
    """Refuse what would take more memory or time than anybody means to spend.

    Raises:
        CommandError: It does; the text says which options to lower.
    """
    if load.frames > _FRAMES_LIMIT:
        raise CommandError(
            f"{load.frames:,} frames are more than {_FRAMES_LIMIT:,}: lower --fps, "
            "--threads or the seconds"
        )
    length = min(load.frequency, load.seconds)
    kept = math.ceil(load.fps * load.threads * length) * (
        load.detections + _FRAME_OVERHEAD
    )
    if keeps_frames and kept > _WINDOW_LIMIT:
        raise CommandError(
            "the plain-Python aggregator would keep about "
            f"{kept:,} detections in a window, at most {_WINDOW_LIMIT:,} are allowed: "
            "lower --detections, --fps, --threads or --frequency"
        )


def _check_plot(path: Path, *, soak: bool) -> None:
    """Refuse a file that cannot be written before anything is measured.

    Raises:
        CommandError: It cannot; the text says what to do.
    """
    if soak:
        raise CommandError("--plot draws frame times, not memory: omit it with --soak")
    if path.suffix.lower() != ".svg":
        raise CommandError(f"--plot writes SVG: name a file that ends in .svg: {path}")
    existed = path.exists()
    try:
        path.open("a").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise CommandError(
            f"cannot write {path}: {error.strerror}; name a file in a directory that "
            "exists and is writable"
        ) from error
