"""R13: jumps of the wall clock are harmless."""

from __future__ import annotations

import itertools
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import eventually

from peakhold.testing import Answer

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"),
    reason="the wall clock is set by a preloaded library, which needs Linux and cc",
)

SOURCE = Path(__file__).with_name("wall_clock.c")
HOUR = 3600
YEAR = 365 * 24 * HOUR
# Two seconds before the hour that comes twice, and before the one that is left out.
AUTUMN = 1_792_889_998
SPRING = 1_774_745_998
ZONE = "CET-1CEST,M3.5.0,M10.5.0/3"
STAY = 1.6
"""Seconds between jumps: more than a window of a second."""
LONGEST_WINDOW = 1.6
"""Seconds; a window closes at the first frame after a second, on a busy machine."""


SOON = 10.0
"""Seconds: the first pause after a failure is 3 s at most."""


class WallClock:
    """The wall clock of a process that was started with ``environment``."""

    def __init__(self, directory):
        library = directory / "wall_clock.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True
        )
        self._offset = directory / "offset"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "WALL_CLOCK_OFFSET": str(self._offset),
            "TZ": ZONE,
        }

    def set(self, seconds):
        """Have it run so many seconds ahead."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture
def wall_clock(tmp_path):
    return WallClock(tmp_path)


def jumps():
    """Return the offsets of the wall clock, one after the other."""
    now = int(time.time())
    return (
        *(0, HOUR, 0, -HOUR, 0, 10 * YEAR, 0, -10 * YEAR, 0),
        *(AUTUMN - now, 0, SPRING - now),
    )


def longest_window(start, wall_clock, jumps, **options):
    """Return the longest time without a report over some jumps, and their number."""
    process = start("steady", **options, **wall_clock.environment)
    process.hear_until("up")
    for offset in jumps:
        wall_clock.set(offset)
        time.sleep(STAY)
    end = time.monotonic()
    process.process.stdin.close()
    assert process.ended() == 0, process.errors()
    said = [line.split() for line in process.rest()]
    ends = [float(line[1]) for line in said if line[0] == "report"]
    assert "True" not in {line[2] for line in said if line[0] == "report"}
    gaps = [after - before for before, after in itertools.pairwise([*ends, end])]
    return max(gaps, default=float("inf")), len(ends)


def test_windows_close_on_the_monotonic_clock_whatever_the_wall_clock_does(
    api, start, wall_clock, figure
):
    longest, reports = longest_window(start, wall_clock, jumps())
    assert longest <= LONGEST_WINDOW
    arrived = {result["class_name"] for result in api.results()}
    assert arrived >= {f"c{number}" for number in range(reports)}
    figure(
        "R13",
        f"{len(jumps()) - 1} jumps, {reports} windows of 1 s, the longest "
        f"{longest:.2f} s",
    )


@pytest.mark.parametrize("jump", [10 * YEAR, -10 * YEAR, HOUR, -HOUR])
def test_what_waits_for_its_next_attempt_is_neither_dropped_nor_forgotten_by_a_jump(
    api, start, wall_clock, jump, figure
):
    api.always = Answer(503)
    process = start("steady", **wall_clock.environment)
    process.hear_until("report")
    eventually(lambda: api.posts(kind="report"))
    wall_clock.set(jump)
    api.always = None
    assert eventually(lambda: api.accepted(kind="report"), SOON)
    process.process.stdin.close()
    assert process.ended() == 0, process.errors()
    arrived = {result["class_name"] for result in api.results()}
    assert arrived >= {"c0", "c1"}
    figure("R13", f"jump of {jump // HOUR:+,} h in an outage: tried again in time")


def test_the_control_intervals_of_the_wall_clock_are_seen(
    api, start, wall_clock, figure
):
    jumps = (0, HOUR, 0, -HOUR, 0)
    longest, _ = longest_window(start, wall_clock, jumps, mutant="wall_clock")
    assert longest > LONGEST_WINDOW
    figure("R13n", f"by the wall clock: a window of {longest:.1f} s")


def test_the_control_the_wall_clock_does_jump(wall_clock):
    wall_clock.set(10 * YEAR)
    code = "import datetime, time; print(datetime.datetime.now().year, time.time())"
    printed = subprocess.check_output(
        [sys.executable, "-c", code], env=wall_clock.environment, text=True
    )
    year, seconds = printed.split()
    assert int(year) >= 2036
    assert abs(float(seconds) - time.time() - 10 * YEAR) < 60
