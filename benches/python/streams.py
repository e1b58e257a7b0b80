"""Streams of whole windows: their closes, their requests, and the worst frame."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import frames as make
from measuring import Line, Surroundings, microseconds
from sinks import (
    CLOSED,
    PERIOD,
    make_peakhold,
    observer,
    observing,
    registering,
    wait_for_close,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sinks import Sinks

_WINDOW_FRAMES = 150
"""A second's frames times five: what the reference holds at 30 FPS and 5 seconds."""

_FPS = 500
_US = 1000
_MS = 1_000_000


class _Stream:
    """A stream through an aggregator, in windows of so many frames.

    Another stream, of a block and a window of its own that is never due, comes in
    before and while nothing of this one does.
    """

    def __init__(self, sinks: Sinks, key: str, frames: list[Any]) -> None:
        self._sinks = sinks
        *stream, self._last = [
            frames[number % len(frames)] for number in range(_WINDOW_FRAMES)
        ]
        self._stream = observing(sinks.aggregator, key, stream, PERIOD)
        self._run = observer(sinks.aggregator, key)
        self._other = observing(sinks.beside, f"{key}-beside", frames)
        self._run(self._last)
        self.window()  # the first one imports and compiles

    def window(self, *, alone: bool = False) -> tuple[int, int]:
        """Return nanoseconds of the frames up to the close, and of the close.

        Args:
            alone: Whether no frame at all comes in the 20 ms before the close.
        """
        time.sleep(PERIOD)
        self._close()  # what there was; with the next frame a window begins
        self._sinks.deliver()
        self._other()
        began = time.monotonic()
        start = perf_counter_ns()
        self._stream()
        between = perf_counter_ns() - start
        wait_for_close(began, time.monotonic if alone else self._other)
        close = self._close()
        self._sinks.deliver()
        return between, close

    def _close(self) -> int:
        start = perf_counter_ns()
        answer = self._run(self._last)
        close = perf_counter_ns() - start
        if answer["message"] != CLOSED:
            message = f"the window was not closed: {answer}"
            raise RuntimeError(message)
        return close


def sustained(line: Line, around: Surroundings) -> None:
    """Compare the time that a frame takes its caller, closes included."""
    for rows, target in ((10, 50.0), (100, 400.0), (1000, 1200.0)):
        frames = make.several(make.detections, rows)
        streams = {
            name: _Stream(sinks, f"sustained-{rows}-{name}", frames)
            for name, sinks in around.blocks.items()
        }
        windows: dict[str, list[tuple[int, int]]] = {name: [] for name in streams}
        for _ in range(1 if around.quick else 5):
            for name, stream in streams.items():
                windows[name].append(stream.window())
        frame = {
            name: median(sum(times) for times in took) / _WINDOW_FRAMES
            for name, took in windows.items()
        }
        if rows == 100:  # noqa: PLR2004 - 150 frames of it are the 15,000 of the target
            alone = {
                name: [stream.window(alone=True) for _ in windows[name]]
                for name, stream in streams.items()
            }
            _closing(line, alone, "after 20 ms without a frame")
            _closing(line, windows, "in a busy loop")
            _closing(line, _hosted(frames, len(alone["peakhold"])), "a host's pool")
        theirs = frame.get("reference")
        line.add(
            f"sustained `run()`, closes included, {rows:,} detections a frame",
            theirs / frame["peakhold"] if theirs else None,
            target,
            unit="x as fast as the reference",
            at_least=True,
            ours=microseconds(frame["peakhold"]),
            theirs=microseconds(theirs),
            note=f"windows of {_WINDOW_FRAMES} frames, in a busy loop",
        )


def _hosted(frames: list[Any], count: int) -> dict[str, list[tuple[int, int]]]:
    with ThreadPoolExecutor() as pool:
        stream = _Stream(make_peakhold(pool), "hosted", frames)
        return {"peakhold": [stream.window() for _ in range(count)]}


def _closing(line: Line, windows: dict[str, list[tuple[int, int]]], when: str) -> None:
    closes = {
        name: sorted(close for _, close in took) for name, took in windows.items()
    }
    ours, others = closes["peakhold"], closes.get("reference")
    line.add(
        f"`run()` that closes 15,000 detections, 20 classes, {when}",
        median(ours) / _US,
        100.0,
        unit="us",
        ours=microseconds(median(ours)),
        theirs=microseconds(median(others)) if others else "",
        note=f"median of {len(ours)}, worst {microseconds(ours[-1])}",
    )


def requests(line: Line, around: Surroundings) -> None:
    """Count the requests that the metadata of 200 frames a second makes."""
    seconds = 2 if around.quick else 5
    frames = make.several(make.detections, 10)
    runs = [
        registering(around.blocks["peakhold"].metadata, [frame]) for frame in frames
    ]
    before = len(around.server.settle())
    for number in range(200 * seconds):
        if number % len(frames) == 0:
            make.renew_ids(frames)
        runs[number % len(frames)]()
        time.sleep(1 / 200)
    posts = around.server.settle()[before:]
    took = posts[-1].at - posts[0].at
    ids = sum(
        len(entry["inference_ids"])  # type: ignore[index]
        for post in posts
        for entry in post.body["data"]  # type: ignore[attr-defined]
    )
    line.add(
        "custom metadata, requests a second at 200 FPS",
        (len(posts) - 1) / took,
        4,
        unit="POST/s",
        ours=f"{ids} ids in {len(posts)} requests",
        theirs=f"a POST a frame, {200 * seconds}",
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


def worst_frame(line: Line, around: Surroundings) -> None:
    """Compare the slowest frames of a stream with those of an empty loop."""
    seconds, runs = (1.5, 1) if around.quick else (12.0, 5)
    worst, rare, all_late = [], [], []
    for number in range(runs):
        run = observer(around.blocks["peakhold"].aggregator, f"tail-{number}")
        ours, empty = _paced(seconds, run)
        worst.append(_tail(ours, 1.0) - _tail(empty, 1.0))
        rare.append(_tail(ours, 0.999) - _tail(empty, 0.999))
        all_late.append(ours)
    theirs = ["", ""]
    if "reference" in around.blocks:
        run = observer(around.blocks["reference"].aggregator, "tail")
        late, _ = _paced(seconds, run)
        theirs = [f"{_tail(late, share):,.0f} ms" for share in (1.0, 0.999)]
        around.blocks["reference"].deliver()
    names = ("worst", "p99.9")
    for name, share, over, other in zip(
        names, (1.0, 0.999), (worst, rare), theirs, strict=True
    ):
        line.add(
            f"{name} frame over an empty loop, {_FPS} FPS, 100 detections",
            median(over),
            1.0,
            unit="ms",
            ours=f"{median(_tail(late, share) for late in all_late):.2f} ms",
            theirs=other,
            note=f"median of {runs} runs of {seconds:g} s",
        )
