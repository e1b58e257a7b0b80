"""The state directory: who lives, who may look, and what a fork leaves alone."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from peakhold.outbox import StateDirectory

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

OWNER = """
import sys, time
from pathlib import Path
from peakhold.outbox import StateDirectory
state = StateDirectory(Path(sys.argv[1]))
print(state.owner_id, flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(state):
    """Another process that owns something in the directory, and its id."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, state.path], stdout=subprocess.PIPE, text=True
    )
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_nothing_is_made_before_it_is_needed(state):
    assert not state.path.exists()
    state.is_alive("0" * 32)
    assert not state.path.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes as POSIX has them")
def test_nobody_else_may_look_into_it(state):
    _ = state.owner_id, state.journals
    directories = [state.path, *(p for p in state.path.rglob("*") if p.is_dir())]
    assert {stat.S_IMODE(p.stat().st_mode) for p in directories} == {0o700}
    files = [p for p in state.path.rglob("*") if p.is_file()]
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


def test_an_owner_is_alive_until_it_is_killed(state, other):
    process, owner_id = other
    assert state.is_alive(owner_id)  # the control
    process.kill()
    process.wait()
    assert not state.is_alive(owner_id)
    assert not state.is_alive(owner_id)


def test_to_ask_after_oneself_does_not_end_one_s_own_lock(state, other):
    ask = f"""
import sys
from pathlib import Path
from peakhold.outbox import StateDirectory
sys.exit(not StateDirectory(Path(sys.argv[1])).is_alive({state.owner_id!r}))
"""
    assert state.is_alive(state.owner_id)
    assert StateDirectory(state.path).is_alive(state.owner_id)
    command = [sys.executable, "-c", ask, state.path]
    assert subprocess.run(command, check=False).returncode == 0
    state.release()
    assert subprocess.run(command, check=False).returncode == 1  # the control


def test_the_files_of_the_dead_are_deleted(state, other):
    process, owner_id = other
    process.kill()
    process.wait()
    mine = state.owner_id
    assert [p.stem for p in (state.path / "owners").iterdir()] == [mine]
    assert owner_id != mine


def test_there_is_one_id_however_many_threads_ask(state):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(state.owner_id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


FORKING = r"""
import os, sys, time
from pathlib import Path
from peakhold.outbox import StateDirectory
state = StateDirectory(Path(sys.argv[1]))
parents = state.owner_id
if os.fork() == 0:
    assert state.is_alive(parents)
    assert state.owner_id != parents
    assert state.is_alive(parents)
os.write(1, f"{state.owner_id} {os.getpid()}\n".encode())
time.sleep(60)
"""


@needs_fork
def test_a_forked_child_is_another_owner_and_outlives_its_parent_alone(state):
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, state.path], stdout=subprocess.PIPE, text=True
    )
    owners = dict(reversed(process.stdout.readline().split()) for _ in range(2))
    parents = owners.pop(str(process.pid))
    ((child, childs),) = owners.items()
    try:
        assert state.is_alive(parents)
        assert state.is_alive(childs)
        process.kill()
        process.wait()
        assert not state.is_alive(parents)
        assert state.is_alive(childs)  # the control: the child still runs
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.stdout.close()
