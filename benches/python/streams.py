"""Streams of whole windows: their closes, their requests, and the worst frame."""

from __future__ import annotations

import math
import time
from collections import Counter
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import frames as make
from sinks import CLOSED, observer, registering, wait_for_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopback import Loopback
    from sinks import Sinks
    from speed import Line

_WINDOW_FRAMES = 150
"""A second's frames times five: what the reference holds at 30 FPS and 5 seconds."""

_FPS = 500
_US = 1000
_MS = 1_000_000


def _one_window(
    run: Callable[[Any], Any], frames: list[Any], sinks: Sinks
) -> tuple[int, int]:
    """Return nanoseconds of the frames up to the close, and of the close."""
    run(frames[0])  # ends the window before, which is due
    sinks.deliver()
    stream = [frames[number % len(frames)] for number in range(_WINDOW_FRAMES)]
    last = stream.pop()
    began = time.monotonic()
    start = perf_counter_ns()
    for frame in stream:
        run(frame)
    between = perf_counter_ns() - start
    wait_for_close(began)
    start = perf_counter_ns()
    answer = run(last)
    close = perf_counter_ns() - start
    if answer["message"] != CLOSED:
        message = f"the window was not closed: {answer}"
        raise RuntimeError(message)
    sinks.deliver()
    return between, close


def sustained(line: Line, blocks: dict[str, Sinks], *, quick: bool) -> None:
    """Compare the time that a frame takes its caller, closes included."""
    for rows, target in ((10, 50.0), (100, 400.0), (1000, 1200.0)):
        frames = make.several(make.detections, rows)
        runs = {
            name: observer(sinks.aggregator, f"sustained-{rows}-{name}")
            for name, sinks in blocks.items()
        }
        windows: dict[str, list[tuple[int, int]]] = {name: [] for name in blocks}
        for name, sinks in blocks.items():
            _one_window(runs[name], frames, sinks)  # the first one imports and compiles
        for _ in range(1 if quick else 5):
            for name, sinks in blocks.items():
                windows[name].append(_one_window(runs[name], frames, sinks))
        frame = {
            name: median(sum(times) for times in took) / _WINDOW_FRAMES
            for name, took in windows.items()
        }
        if rows == 100:  # noqa: PLR2004 - 150 frames of it are the 15,000 of the target
            closes = [close / _US for _, close in windows["peakhold"]]
            line.add(
                "`run()` that closes 15,000 detections, 20 classes",
                median(closes),
                100.0,
                unit="us",
                note=f"median of {len(closes)}, worst {max(closes):,.0f} us",
            )
        theirs = frame.get("reference")
        note = f"{frame['peakhold'] / _US:,.2f} us a frame"
        line.add(
            f"sustained `run()`, closes included, {rows:,} detections a frame",
            theirs / frame["peakhold"] if theirs else None,
            target,
            unit="x as fast as the reference",
            at_least=True,
            note=f"{note} against {theirs / _US:,.0f} us" if theirs else note,
        )


def requests(
    line: Line, blocks: dict[str, Sinks], server: Loopback, *, quick: bool
) -> None:
    """Count the requests that the metadata of 200 frames a second makes."""
    seconds = 2 if quick else 5
    frames = make.several(make.detections, 10)
    runs = [registering(blocks["peakhold"].metadata, [frame]) for frame in frames]
    before = len(server.settle())
    for number in range(200 * seconds):
        if number % len(frames) == 0:
            make.renew_ids(frames)
        runs[number % len(frames)]()
        time.sleep(1 / 200)
    posts = server.settle()[before:]
    began = posts[0].at
    each_second = Counter(math.floor(post.at - began) for post in posts)
    ids = sum(
        len(entry["inference_ids"])  # type: ignore[index]
        for post in posts
        for entry in post.body["data"]  # type: ignore[attr-defined]
    )
    line.add(
        "custom metadata, most requests in a second",
        max(each_second.values()),
        4,
        unit="POST/s",
        note=f"{ids} ids in {len(posts)} requests",
    )


def _paced(seconds: float, run: Callable[[Any], Any]) -> tuple[list[int], list[int]]:
    """Return how late frames were done, those with and those without a sink.

    Each two milliseconds one frame goes to the sink, and one a millisecond later goes
    nowhere; lateness counts from when the frame was due, waking up included.
    """
    frames = make.several(make.detections, 100)
    ticks: tuple[list[int], list[int]] = ([], [])
    step = 1_000_000_000 // _FPS // 2
    due = perf_counter_ns() + step
    for number in range(int(seconds * _FPS) * 2):
        late = due - perf_counter_ns()
        if late > 0:
            time.sleep(late / 1e9)
        if number % 2 == 0:
            run(frames[number // 2 % len(frames)])
        now = perf_counter_ns()
        ticks[number % 2].append(now - due)
        # A stall is one late frame, not a late rest of the stream.
        due = max(due + step, now)
    return ticks


def _tail(times: list[int], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] / _MS


def worst_frame(line: Line, blocks: dict[str, Sinks], *, quick: bool) -> None:
    """Compare the slowest frames of a stream with those of an empty loop."""
    seconds, runs = (2.0, 1) if quick else (12.0, 5)
    worst, rare, notes = [], [], []
    for number in range(runs):
        run = observer(blocks["peakhold"].aggregator, f"tail-{number}")
        ours, empty = _paced(seconds, run)
        worst.append(_tail(ours, 1.0) - _tail(empty, 1.0))
        rare.append(_tail(ours, 0.999) - _tail(empty, 0.999))
        notes.append(_tail(ours, 1.0))
    note = f"median of {runs} runs, {median(notes):.2f} ms in all"
    if "reference" in blocks:
        run = observer(blocks["reference"].aggregator, "tail")
        note += f"; the reference {_tail(_paced(seconds, run)[0], 1.0):,.0f} ms"
        blocks["reference"].deliver()
    what = f"over an empty loop, {seconds:.0f} s at {_FPS} FPS, 100 detections"
    line.add(f"worst frame {what}", median(worst), 1.0, unit="ms", note=note)
    line.add(f"p99.9 frame {what}", median(rare), 1.0, unit="ms", note="")
