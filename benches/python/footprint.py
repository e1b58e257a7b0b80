"""What the package takes of a process: memory, start, and the interpreter.

    python footprint.py URL STATE memory|spin ...

Each is measured in interpreters of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import frames as make
import sinks

if TYPE_CHECKING:
    from loopback import Loopback
    from measuring import Line, Surroundings

_MIB = 1 << 20
_IMPORT = """
import sys, time
if sys.argv[1] == "peakhold":
    import numpy
began = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - began)
"""


def fresh(script: str, server: Loopback, *arguments: object) -> Any:
    """Run a script in a fresh interpreter and return what it prints."""
    with sinks.scratch() as state:
        done = subprocess.run(
            [sys.executable, script, server.url, state, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout)


def memory(line: Line, around: Surroundings) -> None:
    """Measure growth over ten million detections with masks."""
    frames = 2_000 if around.quick else 100_000
    grown, reports = fresh(__file__, around.server, "memory", frames)
    line.add(
        f"memory over {frames * 100:,} detections with masks",
        grown / _MIB,
        1.0,
        unit="MiB",
        ours=f"{grown / 1024:,.0f} KiB",
        note=f"resident growth, {reports} windows reported",
    )


def _run_memory(server_url: str, frames: int) -> tuple[int, int]:
    from loopback import Loopback

    server = Loopback(int(server_url.rpartition(":")[2]))
    before = len(server.posts())
    run = sinks.observer(sinks.make_peakhold().aggregator, "memory")
    templates = make.several(make.with_masks, 100)

    def stream(count: int) -> None:
        for number in range(count):
            frame = templates[number % len(templates)]
            # As a model makes it: an object of its own with masks of its own.
            fresh = frame[:]
            fresh.mask = frame.mask.copy()
            run(fresh)

    stream(frames // 10)
    time.sleep(2 * sinks.PERIOD)  # what is in the air lands
    start = _resident()
    stream(frames)
    time.sleep(2 * sinks.PERIOD)
    return _resident() - start, len(server.settle()) - before


def _resident() -> int:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    # The most there ever was: on macOS and elsewhere growth shows in it, too.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def start_up(line: Line, around: Surroundings) -> None:
    """Compare imports, the two in turn."""
    times: dict[str, list[float]] = {"peakhold": [], "requests": []}
    for _ in range(3 if around.quick else 15):
        for module, took in times.items():
            done = subprocess.run(
                [sys.executable, "-c", _IMPORT, module],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            took.append(float(done.stdout) * 1000)
    ours, theirs = median(times["peakhold"]), median(times["requests"])
    line.add(
        "`import peakhold` after `import numpy`",
        ours / theirs,
        0.3,
        unit="x `import requests`",
        ours=f"{ours:.1f} ms",
        theirs=f"{theirs:.1f} ms",
        note="medians of fresh interpreters",
    )


def interpreter_held(line: Line, around: Surroundings) -> None:
    """Measure how long a spinning thread pauses for another one of the process.

    It also pauses for the system, so a pause counts as far as other threads of the
    process worked meanwhile. The control is a process without peakhold.
    """
    seconds, rounds = (1.5, 1) if around.quick else (4.0, 5)
    pauses: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(rounds):
        for kind, longest in pauses.items():
            longest.append(fresh(__file__, around.server, "spin", kind, seconds) * 1000)
    ours, theirs = median(pauses["with"]), median(pauses["without"])
    line.add(
        "longest time a background thread holds the interpreter",
        ours,
        1.0,
        unit="ms",
        ours=f"{ours:.2f} ms",
        theirs=f"{theirs:.2f} ms",
        note="pause of a spinning thread as far as other threads used a processor "
        f"meanwhile, and without peakhold; medians of the longest of {rounds} runs",
    )


def _run_spin(kind: str, seconds: float) -> float:
    """Return the longest pause between two looks at the clock, as above."""
    frames = make.several(make.detections, 100)
    run = None
    if kind == "with":
        sinks_ = sinks.make_peakhold()
        observe = sinks.observer(sinks_.aggregator, "spin")
        metadata = sinks_.metadata

        def run(frame: Any) -> None:
            observe(frame)
            sinks.registering(metadata, [frame])()

    clock, longest = time.perf_counter, 0.0
    end = clock() + seconds
    number = 0
    while clock() < end:
        if run is not None:
            frame = frames[number % len(frames)]
            make.renew_ids([frame])
            run(frame)
        number += 1
        # Ten milliseconds of nothing but looks at the clocks.
        now, others = clock(), time.process_time() - time.thread_time()
        until = now + 0.01
        while now < until:
            before, worked = now, others
            now, others = clock(), time.process_time() - time.thread_time()
            longest = max(longest, min(now - before, others - worked))
    return longest


def main(arguments: list[str]) -> None:
    """Measure one thing in this interpreter and print it."""
    url, state, what, *rest = arguments
    sinks.connect(url, state)
    if what == "memory":
        print(json.dumps(_run_memory(url, int(rest[0]))))
    else:
        print(json.dumps(_run_spin(rest[0], float(rest[1]))))
    sinks.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
