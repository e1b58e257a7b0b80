"""Hosts that lack something: a home, locks, threads, SQLite, or a directory in peace.

Each is a process of its own, which has to take its frames all the same, end in time,
and say once what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from stand_ins import eventually

posix = pytest.mark.skipif(os.name == "nt", reason="users and locks as POSIX has them")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can become another user",
)
PATIENCE = 60.0
"""Seconds after which a process is taken to hang."""

PRELUDE = """
import os, sys, threading, time

def make_block(**arguments):
    from peakhold.blocks import ModelMonitoringInferenceAggregatorBlockV1
    arguments = {"api_key": "canary-key", **arguments}
    return ModelMonitoringInferenceAggregatorBlockV1(**arguments)

def observe(block, class_name="dog", confidence=0.5, **arguments):
    arguments = {
        "fire_and_forget": True,
        "frequency": 60,
        "unique_aggregator_key": "k",
        "model_id": "m/1",
        **arguments,
    }
    answer = block.run(
        predictions={
            "inference_id": "id",
            "prediction_type": "classification",
            "predictions": [{"class": class_name, "confidence": confidence}],
        },
        **arguments,
    )
    assert not answer["error_status"], answer

def flush_windows():
    from peakhold.blocks.windows import REGISTRY
    for window in list(REGISTRY._windows.values()):
        window.flush()

def become(uid):
    # What is imported later may be where that user may not look.
    import encodings.idna, importlib, pkgutil
    import platformdirs, peakhold
    platformdirs.user_state_path("peakhold")
    for package in ("blocks", "delivery", "outbox", "records", "roboflow"):
        package = importlib.import_module(f"peakhold.{package}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)

def say(*words):
    print(*words, flush=True)
"""


class Child:
    """A Python process that runs a script after the prelude, in a directory."""

    def __init__(self, script, directory, environment):
        kept = {
            name: value
            for name, value in os.environ.items()
            if "proxy" not in name.lower()
        }
        for name, value in environment.items():
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = str(value)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore::DeprecationWarning"),
                *("-c", f"{PRELUDE}\n{script}"),
            ],
            cwd=directory,
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self):
        """Return the next line it says."""
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"it ended: {self.process.communicate()[1]}")
        return line.strip()

    def tell(self):
        """Let it go on after its ``input()``."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ended(self):
        """Wait for its good end; returns standard error."""
        out, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, out + errors
        return errors


@pytest.fixture
def start(api, tmp_path):
    """Starts children, and ends those that a failing test left."""
    children = []

    def start_child(script, directory=tmp_path, **environment):
        children.append(Child(script, directory, environment))
        return children[-1]

    yield start_child
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.communicate()


def reported(api):
    """Return each report as its classes and their confidences."""
    return [
        {
            result["class_name"]: result["confidence"]
            for result in request.json()["inference_results"]
        }
        for request in api.accepted(kind="report")
    ]


def warnings_in(errors):
    return [line for line in errors.splitlines() if "PEAKHOLD_STATE_DIR" in line]


# A directory that is not the same everywhere, or nowhere -----------------------


@needs_fork
def test_a_relative_state_directory_stays_where_it_was_first_read(api, start, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    start(
        """
block = make_block()
os.chdir("../second")
observe(block, "parent")
child = os.fork()
observe(block, "child" if not child else "parent")
if child:
    os.waitpid(child, 0)
else:
    from peakhold.delivery import process
    process._close()
    os._exit(0)
""",
        tmp_path / "first",
        PEAKHOLD_STATE_DIR="state",
    ).ended()
    assert sorted(reported(api), key=list) == [{"child": 0.5}, {"parent": 0.5}]
    assert (tmp_path / "first/state/outbox.sqlite3").exists()
    assert not list((tmp_path / "second").iterdir())


@posix
def test_the_home_of_nobody_leaves_memory_and_one_warning(api, start, tmp_path):
    errors = start(
        """
observe(make_block())
observe(make_block())
import peakhold
assert peakhold.health()["durability"] == "memory"
""",
        PEAKHOLD_STATE_DIR="~nosuchuser/x",
    ).ended()
    assert reported(api) == [{"dog": 0.5}]
    assert len(warnings_in(errors)) == 1
    assert "nosuchuser" not in errors
    assert not list(tmp_path.iterdir())


@posix
def test_a_working_directory_that_is_gone_leaves_memory(api, start, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    errors = start(
        "os.rmdir(os.getcwd()); observe(make_block())", gone, PEAKHOLD_STATE_DIR="state"
    ).ended()
    assert reported(api) == [{"dog": 0.5}]
    assert len(warnings_in(errors)) == 1


@needs_root
def test_a_user_without_a_home_has_memory_and_no_folder_named_tilde(
    api, start, tmp_path
):
    tmp_path.chmod(0o777)
    errors = start(
        "become(54_321); observe(make_block())",
        HOME=None,
        PEAKHOLD_STATE_DIR=None,
        XDG_STATE_HOME=None,
    ).ended()
    assert reported(api) == [{"dog": 0.5}]
    assert len(warnings_in(errors)) == 1
    assert not list(tmp_path.iterdir())


# A directory that is not this process's alone ----------------------------------


@posix
def test_a_directory_that_everybody_may_write_is_warned_of_once(
    api, start, state_directory
):
    script = "observe(make_block()); observe(make_block())"
    assert start(script).ended() == ""  # the control: its own
    state_directory.chmod(0o777)
    errors = start(script).ended()
    assert errors.count("can be written by every user") == 1
    assert len(reported(api)) == 2


ASKING_HANDLER = """
import logging, peakhold

class Asking(logging.Handler):
    def emit(self, record):
        print(peakhold.health()["durability"], file=sys.stderr)

logging.getLogger("peakhold").addHandler(Asking())
observe(make_block())
"""


@posix
@pytest.mark.parametrize("trouble", ["exposed", "no directory"])
def test_a_logging_handler_may_ask_for_the_health(api, start, state_directory, trouble):
    if trouble == "exposed":
        state_directory.mkdir(exist_ok=True)
        state_directory.chmod(0o777)
        assert "process" in start(ASKING_HANDLER).ended().split()
    else:
        gone = state_directory.with_name("gone")
        gone.mkdir()
        script = "os.rmdir(os.getcwd())\n" + ASKING_HANDLER
        child = start(script, gone, PEAKHOLD_STATE_DIR="state")
        assert "memory" in child.ended().split()
    assert reported(api) == [{"dog": 0.5}]


HOLDER = """
block = make_block()
observe(block, confidence=0.1998)
say("open")
input()
observe(block, confidence=0.999)
flush_windows()
"""


@posix
def test_a_process_whose_lock_was_deleted_reports_its_maximum(
    api, start, state_directory
):
    holder = start(HOLDER)
    assert holder.hear() == "open"
    (lock,) = (state_directory / "owners").iterdir()

    def is_reported():
        # It is made anew every 15 seconds: somebody cleans up again.
        lock.unlink(missing_ok=True)
        return reported(api) == [{"dog": 0.1998}]

    other = start("block = make_block(); observe(block, 'cat'); input()")
    # As the old behaviour was, and is in the meantime: it is taken for dead.
    assert eventually(is_reported, timeout=PATIENCE)
    holder.tell()
    errors = holder.ended()
    assert {"dog": 0.999} in reported(api)
    assert len(warnings_in(errors)) == 1
    other.tell()
    other.ended()
    assert len(reported(api)) == 3
    assert not list((state_directory / "journals").iterdir())


BLOCKED_AT_FIRST = """
from pathlib import Path
from peakhold.blocks.windows import REGISTRY
block = make_block()
observe(block, "first")
(window,) = REGISTRY._windows.values()

def close_with(class_name):
    window.interval.last_report = -1e9
    observe(block, class_name, fire_and_forget=False)

close_with("blocked")
state = Path(os.environ["PEAKHOLD_STATE_DIR"])
state.unlink()
for _ in range(20):  # a busy worker may keep a window from being closed
    close_with("meanwhile")
    observe(block, "journaled")
    if list(state.glob("journals/*")):
        break
say("open")
input()
"""


def test_a_window_that_could_have_no_journal_is_followed_by_some_that_do(
    api, start, state_directory
):
    state_directory.write_text("in the way", encoding="utf-8")
    child = start(BLOCKED_AT_FIRST)
    assert child.hear() == "open"
    assert len(list(state_directory.glob("journals/*"))) == 1
    child.process.kill()
    child.process.communicate()
    start("block = make_block(); observe(block, 'cat'); input()")
    heirs = lambda: {"journaled": 0.5} in reported(api)  # noqa: E731
    assert eventually(heirs, timeout=PATIENCE)


# No locks ----------------------------------------------------------------------

NO_LOCKS = """
import errno, fcntl

def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.lockf = fcntl.flock = refuse
"""
WITHOUT_LOCKS = """
block = make_block()
for _ in range(3):
    observe(block)
    flush_windows()
"""


@posix
def test_where_locks_do_not_work_reports_wait_in_memory(api, start, state_directory):
    errors = start(NO_LOCKS + WITHOUT_LOCKS).ended()
    assert reported(api) == [{"dog": 0.5}] * 3
    assert errors.count("No locks available") == len(warnings_in(errors)) == 1
    assert "the file system has no locks" in errors
    assert not list((state_directory / "owners").iterdir())


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"),
    reason="locks are taken away by a preloaded library, which needs Linux and cc",
)
def test_where_the_system_has_no_locks_reports_wait_in_memory(
    api, start, state_directory, tmp_path
):
    library = tmp_path / "no_locks.so"
    source = Path(__file__).with_name("no_locks.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    refused = "import errno, fcntl\nwith open('lock', 'w') as file:\n"
    control = f"{refused}    try: fcntl.lockf(file, fcntl.LOCK_EX)\n"
    control += "    except OSError as error: assert error.errno == errno.ENOLCK\n"
    control += "    else: sys.exit(9)\n"
    errors = start(control + WITHOUT_LOCKS, LD_PRELOAD=library).ended()
    assert reported(api) == [{"dog": 0.5}] * 3
    assert errors.count("No locks available") == len(warnings_in(errors)) == 1
    assert "the file system has no locks" in errors
    assert not list((state_directory / "owners").iterdir())


# No threads --------------------------------------------------------------------

FACTS = """
from peakhold.roboflow import RoboflowClient
facts = RoboflowClient().get_system_info()
assert facts["platform"] and facts["hostname"], facts
"""


@pytest.fixture
def public_directory():
    """A directory in one that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as path:
        yield path


@needs_root
def test_without_threads_reports_are_committed_and_sent_when_there_can_be_some(
    api, start, public_directory
):
    shutil.chown(public_directory, 54_322, 54_322)
    child = start(
        f"""
import resource
become(54_322)
kind = resource.RLIMIT_NPROC
before = resource.getrlimit(kind)
resource.setrlimit(kind, (1, before[1]))
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    say("unlimited")
    sys.exit()
block = make_block()
observe(block)
flush_windows()
{FACTS}
import peakhold
assert peakhold.health()["committed"]["pending"] == 1, peakhold.health()
say("committed")
input()
resource.setrlimit(kind, before)
observe(block, "cat")
flush_windows()
input()
""",
        PEAKHOLD_STATE_DIR=public_directory,
        PEAKHOLD_SYSTEM_INFO="on",
    )
    if child.hear() == "unlimited":
        pytest.skip("RLIMIT_NPROC does not hold here")
    assert reported(api) == []  # the control: there is nobody who could send
    child.tell()
    assert eventually(lambda: len(reported(api)) == 2, timeout=PATIENCE)
    child.tell()
    child.ended()
    (platform,) = {r.json()["platform"] for r in api.accepted(kind="report")}
    assert platform


def test_a_first_block_after_the_end_of_main_takes_frames(api, start):
    child = start(
        f"""
def late():
    threading.main_thread().join()
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        assert sys.version_info >= (3, 12)
    observe(make_block())
{textwrap.indent(FACTS, "    ")}
    say("taken")

threading.Thread(target=late).start()
""",
        PEAKHOLD_SYSTEM_INFO="on",
    )
    assert child.hear() == "taken"
    child.ended()
    if reported(api):
        return
    # Python 3.12 starts no thread any more: the next process sends it.
    start("observe(make_block(), 'cat'); flush_windows(); input()")
    heirs = lambda: {"dog": 0.5} in reported(api)  # noqa: E731
    assert eventually(heirs, timeout=PATIENCE)


# No SQLite --------------------------------------------------------------------

NO_SQLITE = "import sys; sys.modules['_sqlite3'] = None\n"


def test_without_sqlite_everything_waits_in_memory(api, start, state_directory):
    errors = start(
        f"""{NO_SQLITE}
import peakhold
block = make_block()
observe(block, "first")
flush_windows()
observe(block, "second")
metadata = peakhold.RoboflowCustomMetadataBlockV1(api_key="canary-key")
metadata.run(True, "f", "v", {{"inference_id": "i"}})
health = peakhold.health()
assert health["durability"] == "memory", health
assert health["state_directory"] is None, health
"""
    ).ended()
    assert sorted(reported(api), key=list) == [{"first": 0.5}, {"second": 0.5}]
    assert [entry["inference_ids"] for entry in api.entries()] == [["i"]]
    assert errors.count("\n") == errors.count("without the module sqlite3") == 1
    assert not state_directory.exists()
