"""Memory over time, while frames with masks pass."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peakhold.cli.bench.contenders import PeakholdContender
from peakhold.cli.bench.frames import FrameSource
from peakhold.cli.bench.machine import describe_machine
from peakhold.cli.bench.measuring import measure
from peakhold.cli.bench.memory import memory_gauge
from peakhold.cli.terminal import print_table, progress_bar, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peakhold.cli.bench.contenders import Contender
    from peakhold.cli.bench.load import Load
    from peakhold.cli.terminal import Progress

_MIB = 1 << 20
_SAMPLES = 20
_WARM_UP = 0.5
"""Seconds past the first report after which everything that is made once is there."""


class MemoryWatch:
    """Reads the memory now and then, between two frames.

    Args:
        read: Reads it.
        load: How long it takes, which says how often and from when.
        show: Gets each sample as it is taken.

    Attributes:
        samples: Seconds, bytes and frames; the first one is taken warm.
    """

    def __init__(
        self,
        read: Callable[[], int],
        load: Load,
        show: Callable[[float, int, int, int], None],
    ) -> None:
        self.samples: list[tuple[float, int, int]] = []
        self._read = read
        self._show = show
        self._start = time.monotonic()
        self._due = min(load.frequency + _WARM_UP, load.seconds / 2)
        self._interval = (load.seconds - self._due) / _SAMPLES

    def __call__(self, frames: int, /) -> None:
        """Take a sample if it is time."""
        now = time.monotonic() - self._start
        if now >= self._due:
            self._due = now + self._interval
            self.sample(frames)

    def sample(self, frames: int) -> None:
        """Take a sample."""
        now, memory = time.monotonic() - self._start, self._read()
        self.samples.append((now, memory, frames))
        self._show(now, memory, memory - self.samples[0][1], frames)


def soak(
    load: Load, *, live: bool, contender: Contender | None = None
) -> dict[str, Any]:
    """Have peakhold take frames with masks, and watch the memory.

    Args:
        load: How many, how fast and how long.
        live: Whether to print each sample as it is taken; else there is a progress
            bar.
        contender: Who takes them, if not peakhold.

    Returns:
        The results, in bytes and seconds.
    """
    read, what = memory_gauge()
    source = FrameSource(load.detections, load.classes, masks=True)
    # One report is kept: what was delivered is not to grow by being looked at.
    contender = contender or PeakholdContender(kept=1)
    if live:
        say(f"The {what}, while frames with masks pass:")
        say(f"{'seconds':>10} {'MiB':>10} {'growth':>10} {'frames':>14}")
    # Lines that come live are the progress; a bar would be drawn into them.
    showing = nullcontext(_show_nothing) if live else progress_bar("Soak", load.frames)
    try:
        with showing as bar:
            watch = MemoryWatch(read, load, _say_sample if live else _show_nothing)
            measured = measure(contender, source, load, _both(watch, bar))
        watch.sample(measured.frames)
    finally:
        contender.finish()
    memory = [sample[1] for sample in watch.samples]
    return {
        "machine": describe_machine(),
        "load": asdict(load),
        "measured": what,
        "frames": measured.frames,
        "detections": measured.frames * load.detections,
        "passed_bytes": measured.frames * source.nbytes,
        "start_bytes": memory[0],
        "end_bytes": memory[-1],
        "highest_bytes": max(memory),
        "growth_bytes": memory[-1] - memory[0],
        "samples": [
            {"seconds": round(seconds, 3), "bytes": memory, "frames": frames}
            for seconds, memory, frames in watch.samples
        ],
    }


def print_soak(results: Mapping[str, Any]) -> None:
    """Print the results as a table."""
    print_table(
        f"Soak: {results['measured']}",
        ("", ">"),
        [
            ("frames", f"{results['frames']:,}"),
            ("detections", f"{results['detections']:,}"),
            ("their size, masks included", _mib(results["passed_bytes"])),
            ("start, warm", _mib(results["start_bytes"])),
            ("end", _mib(results["end_bytes"])),
            ("highest", _mib(results["highest_bytes"])),
            ("growth", _mib(results["growth_bytes"])),
        ],
    )


def _both(first: Progress, second: Progress) -> Progress:
    def show(frames: int) -> None:
        first(frames)
        second(frames)

    return show


def _say_sample(seconds: float, memory: int, growth: int, frames: int) -> None:
    say(
        f"{seconds:>10.1f} {memory / _MIB:>10.1f} {growth / _MIB:>+10.2f} {frames:>14,}"
    )


def _show_nothing(*_figures: float) -> None:
    """Leave standard output to the JSON document, or to the samples."""


def _mib(size: int) -> str:
    return f"{size / _MIB:,.2f} MiB"
