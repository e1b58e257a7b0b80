"""R8: a full disk degrades delivery to memory, and heals."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from draining import arrived, drain
from waiting import eventually

from peakhold.testing import Answer

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits and mounts as Linux has them"
)

BEFORE, MEANWHILE, AFTER = 20, 300, 20
ALL = {f"w{number}" for number in range(BEFORE + MEANWHILE + AFTER)}


class Committed:
    """The windows that a process told to be committed."""

    def __init__(self, process):
        self._process = process
        self.names = set()

    def count(self):
        while not self._process.lines.empty():
            line = self._process.lines.get()
            if line is None:
                break
            word, name = line.split()
            if word == "committed":
                self.names.add(name)
        return len(self.names)


class ByLimit:
    """A disk that is full for one process, by the size its files may have."""

    def __init__(self, process, _state):
        self._process = process

    def fill(self):
        self._process.tell("full")

    def heal(self):
        self._process.tell("heal")


class ByFilling:
    """A small disk that something else fills."""

    def __init__(self, _process, state):
        self._ballast = state / "ballast"

    def fill(self):
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def heal(self):
        self._ballast.unlink()


@contextmanager
def small_disk(directory):
    """Mount four megabytes of memory."""
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", directory],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.fixture(params=[ByLimit, ByFilling])
def way(request, state):
    """How the disk is filled."""
    if request.param is ByLimit:
        yield ByLimit
        return
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    with small_disk(state):
        yield ByFilling


def go_through(api, start, state, way, **options):
    """Seal before, while and after the disk is full, then kill; returns the numbers.

    Returns:
        How many windows were committed before, meanwhile, and in the end.
    """
    api.always = Answer(503)
    process = start("full", **options)
    process.hear_until("up")
    disk, committed = way(process, state), Committed(process)
    process.tell(BEFORE)
    eventually(lambda: committed.count() == BEFORE)
    before = committed.count()
    disk.fill()
    process.tell(MEANWHILE)
    eventually(lambda: committed.count() > before, 3.0)
    meanwhile = committed.count() - before
    disk.heal()
    process.tell(AFTER)
    eventually(lambda: committed.count() == len(ALL), 20.0)
    assert process.process.poll() is None, process.errors()
    process.kill()
    api.always = None
    return before, meanwhile, committed.count()


def test_what_is_sealed_meanwhile_waits_in_memory_and_is_committed_later(
    api, start, state, way, figure
):
    before, meanwhile, in_the_end = go_through(api, start, state, way)
    assert (before, in_the_end) == (BEFORE, len(ALL))
    assert meanwhile < MEANWHILE
    drain(start, PEAKHOLD_REQUESTS_PER_SECOND="2000")
    assert arrived(api) == ALL
    figure(
        "R8",
        f"{way.__name__}: {MEANWHILE} windows while full, all {len(ALL)} committed "
        "once it healed, 0 lost",
    )


def test_the_control_what_does_not_wait_in_memory_is_lost(api, start, state, figure):
    go_through(api, start, state, ByLimit, mutant="nothing_waits_in_memory")
    drain(start, PEAKHOLD_REQUESTS_PER_SECOND="2000")
    assert arrived(api) < ALL
    figure("R8n", f"nothing waits in memory: {len(ALL - arrived(api))} lost")
