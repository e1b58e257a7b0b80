"""Times each frame, on as many threads as observe at once."""

from __future__ import annotations

import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peakhold.blocks.model_monitoring import NOT_IN_RANGE
from peakhold.cli.bench.frames import MODEL_ID
from peakhold.cli.pacing import Schedule

if TYPE_CHECKING:
    from peakhold.cli.bench.contenders import Contender
    from peakhold.cli.bench.frames import FrameSource
    from peakhold.cli.bench.load import Load
    from peakhold.cli.terminal import Progress

_AGGREGATOR_KEY = "peakhold-bench"


class Timings:
    """The frames of one thread.

    The arrays have their full size from the beginning, so that taking a time allocates
    nothing, and memory does not grow by what is measured.

    Attributes:
        frames: How many there were.
        begins: When each began, in nanoseconds since the start.
        durations: How long ``run`` took, in nanoseconds.
        window_ends: Which of them closed a window.
    """

    def __init__(self, frames: int) -> None:
        self.frames = 0
        self.begins = array("q", bytes(8 * frames))
        self.durations = array("q", bytes(8 * frames))
        self.window_ends: list[int] = []

    def add(self, begin: int, duration: int, *, ended_window: bool) -> None:
        """Take a frame's times in."""
        self.begins[self.frames] = begin
        self.durations[self.frames] = duration
        if ended_window:
            self.window_ends.append(self.frames)
        self.frames += 1


@dataclass
class Measured:
    """What a contender did.

    Attributes:
        timings: Per thread. Frame ``i`` of thread ``t`` of ``n`` is number ``i * n +
            t`` of the source.
        seconds: How long all of it took.
    """

    timings: list[Timings]
    seconds: float = 0.0

    @property
    def frames(self) -> int:
        """Frames of all threads."""
        return sum(timings.frames for timings in self.timings)


def measure(
    contender: Contender, source: FrameSource, load: Load, progress: Progress
) -> Measured:
    """Have a contender take frames, and time each.

    The calling thread is the first of those that observe. It draws the progress
    between two frames, which a thread of its own would do in the middle of one.

    Args:
        contender: Who takes them.
        source: Where they come from; making them is not timed.
        load: How many, how fast and how long.
        progress: Told after the frames of the calling thread how many there have been
            on all threads.
    """
    measured = Measured([Timings(load.frames_per_thread) for _ in range(load.threads)])
    stop = threading.Event()
    start = time.perf_counter_ns()

    def observe(thread: int, progress: Progress) -> None:
        _observe(contender, source, load, measured, thread, start, stop, progress)

    with ThreadPoolExecutor(max(1, load.threads - 1)) as others:
        futures = [
            others.submit(observe, thread, lambda _frames: None)
            for thread in range(1, load.threads)
        ]
        try:
            observe(0, progress)
        except BaseException:
            stop.set()  # or the others would go on to their end
            raise
        for future in futures:
            future.result()
    measured.seconds = (time.perf_counter_ns() - start) / 1e9
    return measured


def _observe(
    contender: Contender,
    source: FrameSource,
    load: Load,
    measured: Measured,
    thread: int,
    start: int,
    stop: threading.Event,
    progress: Progress,
) -> None:
    """Push the frames of one thread, until the time is over."""
    clock = time.perf_counter_ns
    deadline = start + int(load.seconds * 1e9)
    run, timings = contender.run, measured.timings[thread]
    frequency = load.frequency
    schedule = Schedule(load.fps)
    for number in range(load.frames_per_thread):
        schedule.wait()
        if clock() >= deadline or stop.is_set():
            break
        frame = source.make(number * load.threads + thread)
        begin = clock()
        answer = run(
            fire_and_forget=True,
            predictions=frame,
            frequency=frequency,
            unique_aggregator_key=_AGGREGATOR_KEY,
            model_id=MODEL_ID,
        )
        end = clock()
        timings.add(
            begin - start, end - begin, ended_window=answer["message"] != NOT_IN_RANGE
        )
        progress((number + 1) * load.threads)
