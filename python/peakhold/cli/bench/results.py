"""The figures of a comparison, as tables or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from peakhold.cli.bench.machine import describe_machine
from peakhold.cli.terminal import print_table, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from peakhold.cli.bench.load import Load
    from peakhold.cli.bench.measuring import Measured

_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


def summarise(
    load: Load, measured: Mapping[str, Measured], problems: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Put all figures together; durations are microseconds, times seconds.

    Args:
        load: What the contenders had to take.
        measured: What they did, by name.
        problems: What is wrong with their reports, by name.
    """
    return {
        "machine": describe_machine(),
        "load": asdict(load),
        "reports_end": "in this process; nothing was sent",
        "contenders": {
            name: {
                **_figures(each),
                "reports_agree": not problems[name],
                "disagreements": problems[name],
            }
            for name, each in measured.items()
        },
        "agree": not any(problems.values()),
    }


def print_json(results: Mapping[str, Any]) -> None:
    """Print results as one JSON document."""
    say(json.dumps(results, indent=2))


def print_results(results: Mapping[str, Any]) -> None:
    """Print the results as tables that fit a narrow terminal."""
    load, contenders = results["load"], results["contenders"]
    print_table(
        "Benchmark",
        ("", ""),
        [
            *results["machine"].items(),
            (
                "frames",
                f"{load['detections']:,} detections of {load['classes']:,} classes",
            ),
            ("threads", f"{load['threads']}"),
            ("rate of each", f"{load['fps']:,g} frames a second"),
            ("time", f"{load['seconds']:g} s for each contender"),
            ("window", f"{load['frequency']} s"),
            ("reports end", results["reports_end"]),
        ],
    )
    print_table(
        "run() of one frame, in microseconds",
        ("", *(f">{name}" for name in contenders)),
        [
            (label, *(_cell(figures, path) for figures in contenders.values()))
            for label, path in _ROWS
        ],
    )
    say(
        "A window ends in the run() that reports it. plain-python\n"
        "keeps the frames, and walks their detections in that run()."
    )


_ROWS = (
    ("p50", ("frame_us", "p50")),
    ("p95", ("frame_us", "p95")),
    ("p99", ("frame_us", "p99")),
    ("max", ("frame_us", "max")),
    ("mean, windows' ends included", ("frame_us", "mean")),
    ("a window's end, median", ("window_end_us", "p50")),
    ("a window's end, longest", ("window_end_us", "max")),
    ("windows ended", ("window_end_us", "count")),
    ("frames", ("frames",)),
    ("frames a second", ("frames_per_second",)),
    ("one thread's limit by mean", ("thread_limit_per_second",)),
    ("reports", ("reports_agree",)),
)


def _cell(figures: Mapping[str, Any], path: tuple[str, ...]) -> str:
    value: Any = figures
    for name in path:
        value = value[name]
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "agree" if value else "WRONG"
    if isinstance(value, float) and path[0] in ("frame_us", "window_end_us"):
        return f"{value:,.1f}"
    return f"{value:,.0f}"


def _figures(measured: Measured) -> dict[str, Any]:
    threads = measured.timings
    durations = [_microseconds(each.durations, each.frames) for each in threads]
    ends = [
        times[each.window_ends] for times, each in zip(durations, threads, strict=True)
    ]
    frame = _distribution(np.concatenate(durations))
    mean = frame["mean"]
    return {
        "frames": measured.frames,
        "seconds": round(measured.seconds, 3),
        "frames_per_second": round(measured.frames / measured.seconds, 1),
        "thread_limit_per_second": round(1e6 / mean, 1) if mean else None,
        "frame_us": frame,
        "window_end_us": _distribution(np.concatenate(ends)),
    }


def _microseconds(nanoseconds: Any, frames: int) -> npt.NDArray[np.float64]:
    return np.frombuffer(nanoseconds, np.int64)[:frames] / 1e3


def _distribution(times: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return nearest-rank percentiles, which are times that occurred."""
    names = (*_PERCENTILES, "max", "mean")
    if not times.size:
        return {"count": 0, **dict.fromkeys(names)}
    ranks = np.percentile(times, list(_PERCENTILES.values()), method="inverted_cdf")
    figures = (*ranks, times.max(), times.mean())
    return {
        "count": times.size,
        **{
            name: round(float(each), 3)
            for name, each in zip(names, figures, strict=True)
        },
    }
