"""Frame times over time, as a small SVG that needs nothing to be drawn."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

from peakhold.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from peakhold.cli.bench.load import Load
    from peakhold.cli.bench.measuring import Measured

_WIDTH, _HEIGHT = 900, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 18, 88, 54
_PLOT_WIDTH = _WIDTH - _LEFT - _RIGHT
_PLOT_HEIGHT = _HEIGHT - _TOP - _BOTTOM
_FLOOR = _HEIGHT - _BOTTOM

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 16px; font-weight: 600; }
.small { fill: #57606a; }
.paper { fill: #ffffff; }
.grid { stroke: #d8dee4; }
.axis { stroke: #57606a; }
.line { fill: none; stroke-width: 1.3; stroke-linecap: round; }
.stem { stroke-dasharray: 2 4; }
.end { stroke: #ffffff; stroke-width: 1.5; }
.a .line { stroke: #0969da; }
.a .end { fill: #0969da; }
.b .line { stroke: #bc4c00; }
.b .end { fill: #bc4c00; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.small { fill: #9198a1; }
.paper { fill: #0d1117; }
.grid { stroke: #2a313c; }
.axis { stroke: #9198a1; }
.end { stroke: #0d1117; }
.a .line { stroke: #58a6ff; }
.a .end { fill: #58a6ff; }
.b .line { stroke: #f0883e; }
.b .end { fill: #f0883e; }
}
"""
"""Colours of blue and orange, which colour-blind readers tell apart as well."""

_UNITS = ((9, "s"), (6, "ms"), (3, "\N{MICRO SIGN}s"), (0, "ns"))
"""Powers of ten in nanoseconds, and the units of the vertical axis from there on."""

_TICKS = 12


def write_plot(path: Path, load: Load, measured: Mapping[str, Measured]) -> None:
    """Draw the frame times of the contenders over each other and write the file.

    Args:
        path: The file.
        load: What they had to take.
        measured: What they did, by name; at least a frame each.

    Raises:
        CommandError: The file cannot be written.
    """
    text = "\n".join(_draw(load, measured)) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"cannot write {path}: {error.strerror}; name another file"
        ) from error


def _draw(load: Load, measured: Mapping[str, Measured]) -> Iterator[str]:
    times = [
        memoryview(timings.durations)[: timings.frames]
        for each in measured.values()
        for timings in each.timings
        if timings.frames
    ]
    scale = _Scale(load.seconds, min(map(min, times)), max(map(max, times)))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'role="img">'
    )
    yield f"<title>Frame times of {' and '.join(measured)}</title>"
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>'
    yield from _draw_axes(scale)
    yield f'<text class="title" x="{_LEFT}" y="28">run() of each frame</text>'
    threads = f", {load.threads} threads" if load.threads > 1 else ""
    yield _text(
        _WIDTH - _RIGHT,
        28,
        f"{load.detections:,} detections of {load.classes:,} classes, "
        f"{load.fps:,g} frames/s{threads}, a window of {load.frequency} s",
        "end",
        kind="small",
    )
    # The first is drawn last, over the others.
    for place, (letter, (name, each)) in reversed(
        list(enumerate(zip("ab", measured.items(), strict=True)))
    ):
        yield f'<g class="{letter}">'
        yield f'<path class="line" d="{_ranges(each, scale)}"/>'
        yield from _mark_ends(each, scale)
        yield from _draw_legend(_LEFT + place * 170, name)
        yield "</g>"
    yield _text(
        _WIDTH - _RIGHT,
        58,
        "dot: end of a window; stroke: quickest to slowest frame of a moment",
        "end",
        kind="small",
    )
    yield "</svg>"


class _Scale:
    """From times to places: seconds linear, durations logarithmic by decades."""

    def __init__(self, seconds: float, shortest: int, longest: int) -> None:
        self.seconds = seconds
        self.low = math.floor(math.log10(max(1, shortest)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(1, longest))))

    def x(self, seconds: float) -> float:
        return _LEFT + min(1.0, seconds / self.seconds) * _PLOT_WIDTH

    def y(self, nanoseconds: float) -> float:
        share = (math.log10(max(1, nanoseconds)) - self.low) / (self.high - self.low)
        return _FLOOR - share * _PLOT_HEIGHT


def _draw_axes(scale: _Scale) -> Iterator[str]:
    for power in range(scale.low, scale.high + 1):
        y = scale.y(10**power)
        yield _line(_LEFT, y, _WIDTH - _RIGHT, y, "grid")
        unit_power, unit = next(unit for unit in _UNITS if power >= unit[0])
        yield _text(_LEFT - 8, y + 4, f"{10 ** (power - unit_power)} {unit}", "end")
    step = _step(scale.seconds)
    for number in range(int(scale.seconds / step) + 1):
        x = scale.x(number * step)
        yield _line(x, _FLOOR, x, _FLOOR + 5, "axis")
        yield _text(x, _FLOOR + 20, f"{number * step:g}", "middle")
    yield _line(_LEFT, _FLOOR, _WIDTH - _RIGHT, _FLOOR, "axis")
    yield _text(
        _LEFT + _PLOT_WIDTH / 2,
        _HEIGHT - 12,
        "seconds since the start",
        "middle",
        kind="small",
    )
    middle = _TOP + _PLOT_HEIGHT / 2
    yield (
        f'<text class="small" text-anchor="middle" '
        f'transform="translate(18 {middle:g}) rotate(-90)">'
        "time of one run(), logarithmic</text>"
    )


def _ranges(measured: Measured, scale: _Scale) -> str:
    """Return a stroke per pixel of width, from the shortest to the longest there.

    However many frames there are, the file stays small and no stall is left out.
    """
    ranges: dict[int, tuple[int, int]] = {}
    for timings in measured.timings:
        frames = zip(timings.begins, timings.durations, strict=True)
        for begin, duration in islice(frames, timings.frames):
            x = round(scale.x(begin / 1e9))
            low, high = ranges.get(x, (duration, duration))
            ranges[x] = (min(low, duration), max(high, duration))
    return "".join(
        # A pixel longer at both ends, for a single frame is to be seen as well.
        f"M{x} {scale.y(low) + 1:.1f}V{scale.y(high) - 1:.1f}"
        for x, (low, high) in sorted(ranges.items())
    )


def _mark_ends(measured: Measured, scale: _Scale) -> Iterator[str]:
    for timings in measured.timings:
        for frame in timings.window_ends:
            x = scale.x(timings.begins[frame] / 1e9)
            y = scale.y(timings.durations[frame])
            yield f'<path class="stem line" d="M{x:.1f} {_FLOOR}V{y:.1f}"/>'
            yield f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _draw_legend(x: float, name: str) -> Iterator[str]:
    yield f'<path class="line" style="stroke-width: 4" d="M{x:g} 54h22"/>'
    yield f'<circle class="end" cx="{x + 11:g}" cy="54" r="4.5"/>'
    yield _text(x + 32, 58, name)


def _step(seconds: float) -> float:
    """Return the round distance of ticks that makes a dozen of them at most."""
    power = math.floor(math.log10(seconds / _TICKS))
    steps = (
        factor * 10.0**exponent
        for exponent in (power, power + 1)
        for factor in (1, 2, 5)
    )
    return next(step for step in steps if seconds / step <= _TICKS)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, kind: str = "label"
) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{text}</text>"
    )
