"""What observing costs in memory: no object per detection, no copy, no growth.

Measured in processes of their own; each figure stands beside a control that does the
forbidden thing and must be seen doing it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peakhold._peakhold import PeakAggregator

if TYPE_CHECKING:
    import numpy as np

MB = 1_000_000
COUNTER = Path(__file__).with_name("counting_allocator.rs")

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads /proc for resident memory"
)


@pytest.fixture(scope="module")
def counting_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc to compile the counting allocator with")
    library = tmp_path_factory.mktemp("counter") / "counter.so"
    options = ["--edition=2021", "--crate-type=cdylib", "-Copt-level=1"]
    subprocess.run([rustc, *options, "-o", str(library), str(COUNTER)], check=True)
    return library


def test_a_frame_makes_no_python_object_per_detection(run_probe, counting_library):
    found = run_probe("allocations.py", str(counting_library))
    for act, blocks in found.items():
        if act.startswith("control"):
            assert blocks["100"] >= 100
            assert blocks["1000"] >= 1000
        else:
            # The answer of observe is an object, if above 256 one of its own.
            assert blocks["1000"] <= blocks["100"] + 1, act
            assert blocks["100"] <= 5, act


def test_a_frame_leaves_no_python_object_behind(make_detections):
    names = [f"class {row % 5}" for row in range(1000)]
    frame = make_detections(names, [0.5] * 1000, names, names)
    window = PeakAggregator()

    def blocks_after(act: Any) -> int:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        kept = act()
        _, peak = tracemalloc.get_traced_memory()
        del kept
        return peak - before

    window.observe(frame, "m")
    tracemalloc.start()
    try:
        # Three objects a row, of 50 bytes and more, are what a loop would make.
        assert blocks_after(lambda: window.observe(frame, "m")) < 4000
        assert blocks_after(frame.data["class_name"].tolist) > 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="no peak resident memory to read")
def test_a_strided_foreign_endian_column_of_100_mb_is_not_copied(run_probe):
    found = run_probe("column_copy.py")
    assert found["column"] > 100 * MB
    assert (found["taken"], found["ids"], found["classes"]) == (400_000, 4, 4)
    assert found["observe"] < 4 * MB
    assert found["ids"] < 4 * MB
    assert found["copy"] > 90 * MB


@linux_only
def test_ten_million_detections_grow_the_process_by_less_than_1_mb(run_probe):
    found = run_probe("window_growth.py")
    for order in ("random", "rising"):
        assert found[order]["detections"] == 10_000_000
        assert found[order]["classes"] == 80
        assert found[order]["grown"] < MB, order
    assert found["rising"]["reported"] == 1  # the last frame holds every peak
    assert found["hoard"]["grown"] > 5 * MB


# A window of 100,000 names holds about 45 MB. What may be left of it when it has closed
# is slack of the allocators: pages in which something else still lives.
SLACK = 4 * MB


@pytest.fixture(scope="module")
def twenty_windows(run_probe) -> dict[str, Any]:
    found: dict[str, Any] = run_probe("window_release.py", "20", "drop")
    assert found["held"] == [100_000] * 20
    assert found["rejected"] == {}
    return found


@linux_only
def test_twenty_windows_of_100_000_names_free_all_they_held(twenty_windows):
    # malloc_trim gives the system every page that the process has freed.
    assert max(twenty_windows["trimmed"]) < SLACK


@linux_only
def test_twenty_windows_of_100_000_names_each_end_where_they_began(twenty_windows):
    assert max(twenty_windows["after"]) < SLACK


@linux_only
def test_windows_that_are_kept_do_not_end_where_they_began(run_probe):
    """The control."""
    found = run_probe("window_release.py", "2", "hoard")
    assert found["after"][0] > 5 * SLACK
    assert found["trimmed"][0] > 5 * SLACK
    assert found["trimmed"][1] > found["trimmed"][0] + 2 * SLACK


def test_no_frame_is_kept_alive(make_detections):
    frame = make_detections(["a"] * 10, [0.5] * 10, "id", "type")
    names = frame.data["class_name"]
    before = sys.getrefcount(names), sys.getrefcount(frame)
    window = PeakAggregator()
    window.observe(frame, "m")
    assert (sys.getrefcount(names), sys.getrefcount(frame)) == before
    held: list[np.ndarray[Any, Any]] = [names]
    assert sys.getrefcount(names) == before[0] + len(held)
