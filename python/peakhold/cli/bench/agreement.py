"""Whether reports say what is in the frames, found by walking the frames again."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from peakhold.cli.bench.frames import MODEL_ID
from peakhold.cli.bench.plain import most_confident

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import supervision as sv

    from peakhold.cli.bench.frames import FrameSource
    from peakhold.cli.bench.measuring import Measured, Timings
    from peakhold.cli.bench.plain import Report

_SHOWN = 3


def disagreements(
    reports: Sequence[Report], measured: Measured, source: FrameSource
) -> list[str]:
    """Return what is wrong with the reports of a contender; nothing if they are right.

    With one thread it is known which frames are in which window, and each report has
    to be that of its frames, line by line. With several a frame that overlaps a
    window's end may be in either: then all reports together have to name the peak of
    each class, and each line has to be in the frame of its inference id.

    Args:
        reports: In the order of their windows.
        measured: What the contender did.
        source: Where its frames came from.
    """
    if len(measured.timings) == 1:
        problems = _compare_windows(reports, measured.timings[0], source)
    else:
        problems = _compare_peaks(reports, measured, source)
    hidden = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"and {hidden} more"] if hidden > 0 else [])


def _compare_windows(
    reports: Sequence[Report], timings: Timings, source: FrameSource
) -> list[str]:
    ends = [end + 1 for end in timings.window_ends]
    edges = sorted({0, *ends, timings.frames})
    windows = [range(begin, end) for begin, end in pairwise(edges)]
    if len(reports) != len(windows):
        problem = (
            f"{len(reports)} reports of {len(windows)} windows; after a pause of more "
            "than a second, as when a computer sleeps, run it again"
        )
        return [problem]
    problems = []
    for number, (report, window) in enumerate(zip(reports, windows, strict=True), 1):
        expected = _walk(source.enough(window))
        if report != expected:
            wrong = sum(a != b for a, b in zip(report, expected, strict=False))
            wrong += abs(len(report) - len(expected))
            problems.append(
                f"report {number} differs from its frames in {wrong} of "
                f"{len(expected)} lines"
            )
    return problems


def _compare_peaks(
    reports: Sequence[Report], measured: Measured, source: FrameSource
) -> list[str]:
    threads = len(measured.timings)
    numbers = (
        range(thread, timings.frames * threads, threads)
        for thread, timings in enumerate(measured.timings)
    )
    expected = _walk(chain.from_iterable(map(source.enough, numbers)))
    wanted = {line["class_name"]: line["confidence"] for line in expected}
    found: dict[str, float] = {}
    problems = []
    for number, report in enumerate(reports, 1):
        for line in report:
            name, confidence = line["class_name"], line["confidence"]
            found[name] = max(found.get(name, 0.0), confidence)
            if not _is_in(line, source):
                problems.append(
                    f"report {number}: {name!r} with {confidence} is not in the frame "
                    f"{line['inference_id']}"
                )
    problems += [
        f"the most confident {name!r} is {found.get(name)}, not {wanted.get(name)}"
        for name in sorted(wanted.keys() | found.keys())
        if found.get(name) != wanted.get(name)
    ]
    return problems


def _walk(frames: Iterable[sv.Detections]) -> Report:
    return most_confident((MODEL_ID, frame) for frame in frames)


def _is_in(line: dict[str, object], source: FrameSource) -> bool:
    frame = source.of_id(str(line["inference_id"]))
    of_class = np.asarray(frame.data["class_name"]) == line["class_name"]
    as_confident = np.asarray(frame.confidence) == line["confidence"]
    return bool((of_class & as_confident).any())
