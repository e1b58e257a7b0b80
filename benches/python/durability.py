"""What it costs a frame that a killed process loses nothing: the journal, and all."""

from __future__ import annotations

import json
import os
import sys
from tempfile import TemporaryFile
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import footprint
import frames as make
import sinks
from measuring import Line, Surroundings, microseconds

if TYPE_CHECKING:
    from collections.abc import Callable

_ROWS = (10, 100, 1000)
_ORDINARY, _HIGHS = "ordinary frames", "frames of record highs"
_APPEND = "append"


def durability(line: Line, around: Surroundings) -> None:
    """Compare durability `process`, the default, with `memory`, in fresh interpreters.

    The two take turns, and the fastest sweep of each counts.
    """
    best: dict[str, dict[str, float]] = {"process": {}, "memory": {}}
    for _ in range(1 if around.quick else 5):
        for kind, fastest in best.items():
            took = footprint.fresh(__file__, around.server, kind, int(around.quick))
            for what, nanoseconds in took.items():
                fastest[what] = min(fastest.get(what, nanoseconds), nanoseconds)
    append = microseconds(min(fastest.pop(_APPEND) for fastest in best.values()))
    notes = {
        _ORDINARY: "no detection is a record high of its class",
        _HIGHS: "each frame has one of every class in it; "
        f"an append of 100 bytes alone takes {append}",
    }
    for what, ours in best["process"].items():
        line.add(
            f"`run()`, {what}",
            ours / best["memory"][what],
            1.1,
            unit="x durability `memory`",
            ours=microseconds(ours),
            theirs=microseconds(best["memory"][what]),
            note=next(note for kind, note in notes.items() if what.startswith(kind)),
        )


def _measure(state: str, *, quick: bool) -> dict[str, float]:
    """Return nanoseconds of a frame in the fastest sweep, by what it was of."""
    block = sinks.make_peakhold().aggregator
    took = {_APPEND: _appending(state)}
    for kind in (_ORDINARY, _HIGHS):
        for rows in _ROWS:
            frames = make.several(make.detections, rows)
            sweep = sinks.observing(block, f"{kind}-{rows}", frames)
            raise_all = _raising(frames) if kind == _HIGHS else None
            took[f"{kind}, {rows:,} detections"] = _fastest(
                sweep, raise_all, (20 if quick else 100_000 // (rows + 500))
            ) / len(frames)
    return took


def _appending(state: str) -> float:
    """Return nanoseconds of the least that keeps a record high from a kill."""
    record = bytes(100)
    with TemporaryFile(dir=state, buffering=0) as file:

        def sweep() -> None:
            for _ in range(make.FRAMES):
                file.write(record)

        return _fastest(sweep, None, 1_000) / make.FRAMES


def _fastest(
    sweep: Callable[[], None], before: Callable[[], None] | None, count: int
) -> float:
    best = float("inf")
    for number in range(count + 1):
        if before:
            before()
        start = perf_counter_ns()
        sweep()
        if number:  # the first one makes the window, and its file
            best = min(best, perf_counter_ns() - start)
    return best


def _raising(frames: list[Any]) -> Callable[[], None]:
    """Return what gives each frame confidences above all that were there before."""
    reached = 0

    def raise_all() -> None:
        nonlocal reached
        for frame in frames:
            reached += 1
            frame.confidence[:] = reached / 2**20  # exact in 32 bits

    return raise_all


def main(arguments: list[str]) -> None:
    """Measure one durability in this interpreter and print it."""
    url, state, kind, quick = arguments
    os.environ["PEAKHOLD_DURABILITY"] = kind
    sinks.connect(url, state)
    print(json.dumps(_measure(state, quick=bool(int(quick)))))
    sinks.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
