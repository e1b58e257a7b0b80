"""Times of several contenders, taken in turn in one run, for ratios to be trusted."""

from __future__ import annotations

import gc
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import frames as make
import numpy as np
from measuring import Line, Surroundings, microseconds
from sinks import observing, registering

import peakhold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sinks import Sinks


_ROOT = Path(__file__).resolve().parents[2]
NO_FLOOR = (
    "there is no ../shared/bench with the floor beside this checkout, or no C compiler"
)


def interleaved(
    sweeps: dict[str, Callable[[], object]], repeats: int
) -> dict[str, list[int]]:
    """Return nanoseconds of each sweep, `repeats` of them, the contenders in turn.

    Args:
        sweeps: What to time, by contender.
        repeats: How often each.
    """
    times: dict[str, list[int]] = {name: [] for name in sweeps}
    with _no_collections():
        for _ in range(repeats):
            for name, sweep in sweeps.items():
                began = perf_counter_ns()
                sweep()
                times[name].append(perf_counter_ns() - began)
    return times


def _each(function: Callable[..., object], frames: list[Any], *more: str) -> Any:
    """Return a sweep that calls a function with each frame, and nothing else."""

    def sweep() -> None:
        for frame in frames:
            function(frame)

    def sweep_with_model() -> None:
        model_id = more[0]
        for frame in frames:
            function(frame, model_id)

    return sweep_with_model if more else sweep


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load_floor() -> Any | None:
    """Compile and import the floor, by its own script; None if that cannot be."""
    script = _ROOT.parent / "shared" / "bench" / "run.py"
    spec = spec_from_file_location("floor_builder", script)
    if not script.exists() or spec is None or spec.loader is None:
        return None
    builder = module_from_spec(spec)
    spec.loader.exec_module(builder)
    try:
        # Not removed while it is mapped; the system empties its own scratch space.
        return builder.build(tempfile.mkdtemp(prefix="peakhold-floor-"))
    except (OSError, builder.subprocess.CalledProcessError) as error:
        print(f"speed: {error}", file=sys.stderr)
        return None


def _repeats(rows: int, *, quick: bool) -> int:
    """As many sweeps as take some seconds at most; the minimum needs hundreds."""
    return 40 if quick else max(300, 6000 // (1 + rows // 20))


def against_floor(line: Line, around: Surroundings) -> None:
    """Compare `observe` and `unique_inference_ids` with the floor in C."""
    floor = load_floor()
    if floor is None:
        print(f"speed: {NO_FLOOR}", file=sys.stderr)
    for rows, target in ((10, 2.0), (100, 1.3), (1000, 1.0)):
        frames = make.several(make.detections, rows)
        ours = _each(peakhold.PeakAggregator().observe, frames, make.MODEL_ID)
        theirs = _each(floor.collect, frames) if floor else None
        what = f"`observe`, {rows:,} detections"
        _compare(line, what, target, (ours, theirs), rows, quick=around.quick)
    for rows in (100, 1000):
        frames = make.several(make.detections, rows)
        what = f"`unique_inference_ids`, {rows:,} detections"
        ours = _each(peakhold.unique_inference_ids, frames)
        theirs = _each(floor.uniq, frames) if floor else None
        _compare(line, what, 1.5, (ours, theirs), rows, quick=around.quick)


def _compare(
    line: Line,
    what: str,
    target: float,
    sweeps: tuple[Callable[[], object], Callable[[], object] | None],
    rows: int,
    *,
    quick: bool,
) -> None:
    ours, floor = sweeps
    contenders = {"ours": ours, "ours again": ours}
    if floor:
        contenders["floor"] = floor
    times = interleaved(contenders, _repeats(rows, quick=quick))
    best = {name: min(values) / make.FRAMES for name, values in times.items()}
    line.noise(best["ours"], best["ours again"])
    figure = best["ours"] / best["floor"] if floor else None
    line.add(
        what,
        figure,
        target,
        unit="x the floor",
        ours=f"{best['ours']:,.0f} ns",
        theirs=f"{best['floor']:,.0f} ns" if floor else "",
    )


def models_in_turn(line: Line, around: Surroundings) -> None:
    """Compare a stream of four models in turn with one of a single model."""
    for rows in (10, 100):
        frames = make.several(make.detections, rows)
        sweeps = {
            name: _in_turn(peakhold.PeakAggregator().observe, frames, models)
            for name, models in (("one", 1), ("four", 4), ("four again", 4))
        }
        times = interleaved(sweeps, _repeats(rows, quick=around.quick))
        best = {name: min(values) / make.FRAMES for name, values in times.items()}
        line.noise(best["four"], best["four again"])
        line.add(
            f"`observe`, {rows} detections of four models in turn",
            best["four"] / best["one"],
            1.1,
            unit="x of one model",
            ours=f"{best['four']:,.0f} ns",
            theirs=f"{best['one']:,.0f} ns",
        )


def statistics(line: Line, around: Surroundings) -> None:
    """Compare `observe` with statistics with that without, and with NumPy's own."""
    for rows, target in ((10, 1.6), (100, 1.4), (1000, 1.4)):
        frames = make.several(make.detections, rows)
        observe = {
            "with": peakhold.PeakAggregator(statistics=True).observe,
            "without": peakhold.PeakAggregator().observe,
        }
        sweeps = {
            name: _each(each, frames, make.MODEL_ID) for name, each in observe.items()
        }
        sweeps["again"] = sweeps["with"]
        times = interleaved(sweeps, _repeats(rows, quick=around.quick))
        best = {name: min(values) / make.FRAMES for name, values in times.items()}
        line.noise(best["with"], best["again"])
        line.add(
            f"`observe` with statistics, {rows:,} detections",
            best["with"] / best["without"],
            target,
            unit="x of without",
            ours=f"{best['with']:,.0f} ns",
            theirs=f"{best['without']:,.0f} ns",
        )
    frames = make.several(make.detections, 100)
    sweeps = {
        "ours": _each(observe["with"], frames, make.MODEL_ID),
        "numpy": _each(_with_numpy({}), frames),
    }
    times = interleaved(sweeps, 20 if around.quick else 100)
    best = {name: min(values) / make.FRAMES for name, values in times.items()}
    line.add(
        "statistics of 100 detections by NumPy (`bincount`, `histogram` per class)",
        best["numpy"] / best["ours"],
        20.0,
        unit="x of ours",
        at_least=True,
        ours=f"{best['ours']:,.0f} ns",
        theirs=f"{best['numpy']:,.0f} ns",
    )


def _with_numpy(totals: dict[str, list[Any]]) -> Callable[[Any], None]:
    """Return a function that adds what a frame has of each class to totals."""
    bins = np.arange(21) / 20

    def add(frame: Any) -> None:
        names, numbers = np.unique(frame.data["class_name"], return_inverse=True)
        counts = np.bincount(numbers)
        sums = np.bincount(numbers, weights=frame.confidence)
        for number, name in enumerate(names):
            of_class = frame.confidence[numbers == number]
            histogram, _ = np.histogram(of_class, bins)
            total = totals.setdefault(str(name), [0, 0, 0.0, 1.0, np.zeros(20)])
            total[0] += 1
            total[1] += counts[number]
            total[2] += sums[number]
            total[3] = min(total[3], of_class.min())
            total[4] += histogram

    return add


def _in_turn(
    observe: Callable[..., object], frames: list[Any], models: int
) -> Callable[[], object]:
    calls = [
        (frame, f"{make.MODEL_ID}{number % models}")
        for number, frame in enumerate(frames)
    ]

    def sweep() -> None:
        for frame, model_id in calls:
            observe(frame, model_id)

    return sweep


def between_reports(line: Line, around: Surroundings) -> None:
    """Compare `run()` that only takes a frame in."""
    frames = make.several(make.detections, 10)
    sweeps = {
        name: observing(sinks.aggregator, "ratio", frames)
        for name, sinks in around.blocks.items()
    }
    for sweep in sweeps.values():
        sweep()
    sweeps["again"] = sweeps["peakhold"]
    times = interleaved(sweeps, _repeats(10, quick=around.quick))
    best = {name: min(values) / len(frames) for name, values in times.items()}
    line.noise(best["peakhold"], best["again"])
    theirs = best.get("reference")
    line.add(
        "`run()` between reports, 10 detections",
        best["peakhold"] / theirs if theirs else None,
        0.7,
        unit="x the reference",
        ours=microseconds(best["peakhold"]),
        theirs=microseconds(theirs),
    )


def metadata(line: Line, around: Surroundings) -> None:
    """Compare `run()` of custom metadata, each frame with an id new since the last."""
    for rows, target in ((100, 10.0), (1000, 15.0)):
        frames = make.several(make.detections, rows)
        best = dict.fromkeys(around.blocks, float("inf"))
        for _ in range(5 if around.quick else 30):
            for name, sinks in around.blocks.items():
                best[name] = min(best[name], _frame_by_frame(sinks, frames))
        theirs = best.get("reference")
        line.add(
            f"custom metadata `run()`, {rows:,} detections",
            theirs / best["peakhold"] if theirs else None,
            target,
            unit="x as fast as the reference",
            at_least=True,
            ours=microseconds(best["peakhold"]),
            theirs=microseconds(theirs),
            note="each frame with a new id, given to the sink as soon as it is made; "
            "without sending, and mostly without the frame in 50 that wakes a worker",
        )


def _frame_by_frame(sinks: Sinks, frames: list[Any]) -> float:
    """Return nanoseconds a frame, which the sink gets as soon as it has its new id."""
    sinks.deliver()
    registering(sinks.metadata, frames)()  # as in a stream that runs for some time
    took = 0
    with _no_collections():
        for frame in frames:
            make.renew_ids([frame])
            register = registering(sinks.metadata, [frame])
            began = perf_counter_ns()
            register()
            took += perf_counter_ns() - began
    return took / len(frames)
