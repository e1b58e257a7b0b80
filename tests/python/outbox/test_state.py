"""The state directory: who lives, who may look, and what a fork leaves alone."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from peakhold.notices import Notices
from peakhold.outbox import StateDirectory

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
needs_posix = pytest.mark.skipif(os.name == "nt", reason="locks and modes of POSIX")

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


@needs_posix
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


ASK = """
import sys
from pathlib import Path
from peakhold.outbox import StateDirectory
sys.exit(not StateDirectory(Path(sys.argv[1])).is_alive(sys.argv[2]))
"""


def is_alive_elsewhere(state, owner_id):
    """Whether another process takes an owner for alive."""
    command = [sys.executable, "-c", ASK, state.path, owner_id]
    return subprocess.run(command, check=False).returncode == 0


def leave_dead(state, count):
    """Leave lock files as processes do that are killed."""
    owners = state.path / "owners"
    owners.mkdir(parents=True)
    names = [f"{number:016x}" for number in range(count)]
    for name in names:
        (owners / f"{name}.lock").touch()
    return names


@needs_posix
def test_two_that_find_a_dead_owner_at_once_both_succeed(state, monkeypatch):
    import fcntl

    (dead,) = leave_dead(state, 1)
    lock = fcntl.lockf
    faster = []

    def lock_late(*arguments):
        if not faster:  # this process has opened the file, and the other deletes it
            faster.append(is_alive_elsewhere(state, dead))
            assert not list((state.path / "owners").iterdir())
        return lock(*arguments)

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    assert not state.is_alive(dead)
    assert faster == [False]


START_TOGETHER = """
import os, sys
from pathlib import Path
from peakhold.outbox import StateDirectory

ready, go = os.pipe()
children = []
for _ in range(40):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(ready, 1)
        failed = 1
        try:
            failed = not StateDirectory(Path(sys.argv[1])).owner_id
        finally:
            os._exit(failed)
    children.append(child)
os.close(go)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@needs_fork
def test_forty_processes_that_start_at_once_all_become_owners(state):
    leave_dead(state, 100)
    command = [sys.executable, "-c", START_TOGETHER, state.path]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@needs_posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_where_locks_do_not_work_nobody_waits_and_no_file_is_left(
    state, monkeypatch, number
):
    import fcntl

    (other,) = leave_dead(state, 1)
    calls = []

    def fail(*_):
        calls.append(number)
        assert len(calls) < 10  # the old behaviour: again and again
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", fail)
    for ask in (
        lambda: state.owner_id,
        lambda: state.is_alive(other),
        lambda: state.alone(int),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            ask()
        assert caught.value.errno == number
    assert [p.stem for p in (state.path / "owners").iterdir()] == [other]
    monkeypatch.undo()
    assert state.is_alive(state.owner_id)  # the control: locks work again


@needs_posix
def test_a_lock_file_of_another_user_keeps_nobody_from_starting(state, monkeypatch):
    (other,) = leave_dead(state, 1)
    refused = state.path / "owners" / f"{other}.lock"
    opened = os.open

    def refuse(path, *arguments):  # root may open everything
        if path == refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    assert state.is_alive(state.owner_id)
    with pytest.raises(PermissionError):
        state.is_alive(other)  # the control


@needs_posix
@pytest.mark.parametrize("what", ["owners/*.lock", "owners"])
def test_a_deleted_lock_file_is_made_anew_with_a_warning(state, caplog, what):
    notices = Notices()
    mine = state.owner_id
    state.stay_alive(notices)
    assert notices.counts == {}  # the control: nothing was deleted
    (state.path / "owners" / f"{mine}.lock").unlink()
    if what == "owners":
        (state.path / "owners").rmdir()
    assert not is_alive_elsewhere(state, mine)
    state.stay_alive(notices)
    assert state.owner_id == mine
    assert is_alive_elsewhere(state, mine)
    state.stay_alive(notices)
    assert notices.counts == {"owner": 1}
    assert "PEAKHOLD_STATE_DIR" in caplog.text
    state.release()
    assert not is_alive_elsewhere(state, mine)


@needs_posix
def test_a_lock_that_cannot_be_made_anew_is_tried_again(state, caplog):
    notices = Notices()
    mine = state.owner_id
    owners = state.path / "owners"
    (owners / f"{mine}.lock").unlink()
    owners.rmdir()
    owners.touch()
    state.stay_alive(notices)
    assert "cannot be made anew" in caplog.text
    owners.unlink()
    state.stay_alive(notices)
    assert is_alive_elsewhere(state, mine)


@needs_posix
def test_a_directory_that_others_may_change_is_known(state, monkeypatch):
    assert state.exposure() is None  # nothing is there yet
    _ = state.outbox
    assert state.exposure() is None
    state.path.chmod(0o777)
    assert state.exposure() == "can be written by every user"
    state.path.chmod(0o700)
    assert state.exposure() is None
    owner = state.path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 4321)
    if owner:
        assert state.exposure() == f"belongs to another user, {owner}"
    else:  # the administrator may do everything in any case
        assert state.exposure() is None
        os.chown(state.path, 1234, 1234)
        assert state.exposure() == "belongs to another user, 1234"
        monkeypatch.undo()
        assert state.exposure() is None  # as a directory of the machine's often does
        assert state.other_owner() == 1234


@needs_posix
@pytest.mark.parametrize("name", ["journals", "owners"])
def test_a_directory_inside_that_others_may_change_is_known(state, name):
    inside = state.path / name
    inside.mkdir(parents=True)
    inside.chmod(0o777)
    state.path.chmod(0o700)
    assert state.exposure() is None  # the control: nobody else gets there
    state.path.chmod(0o755)
    assert name in state.exposure()
    inside.chmod(0o700)
    assert state.exposure() is None
