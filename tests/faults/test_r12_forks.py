"""R12: forks are safe, and what the parent observed is sent once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from http.client import HTTPConnection

import pytest
from draining import altered, drain, keys_and_bodies
from processes import PROGRAMS, Processes
from waiting import eventually

from peakhold.testing import refusing_port

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORKS = 500
FORKS_OF_THE_CONTROL = 10
COLD_PROCESSES = 200
COLD_PROCESSES_OF_THE_CONTROL = 20
AT_ONCE = 4
PARENT = "parent-once"
FAST = {"PEAKHOLD_REQUESTS_PER_SECOND": "2000"}


def arrived(api):
    return Counter(result["class_name"] for result in api.results())


def forks(start, number, **options):
    """Fork under contention; returns how many children hung."""
    process = start("forks", number, **options)
    hangs = int(process.hear_until("hangs", timeout=300))
    process.ended()
    return hangs


def forks_amid_first_frames(processes, **options):
    """Fork in processes that have just begun; returns how many children hung."""
    hangs = 0
    for _ in range(0, processes, AT_ONCE):
        batch = Processes()
        try:
            started = [batch.start("first_frames", **options) for _ in range(AT_ONCE)]
            hangs += sum(int(process.hear_until("hangs")) for process in started)
            assert [process.ended() for process in started] == [0] * AT_ONCE
        finally:
            batch.end()
        if hangs:
            break
    return hangs


def windows(api):
    """Return under how many keys each window came.

    Most children leave as if killed, and may just have been sending another's window:
    then it is sent once more, with its key and body.
    """
    assert altered(api) == set()
    return Counter(
        result["class_name"]
        for _, body in keys_and_bodies(api)
        for result in json.loads(body)["inference_results"]
    )


def test_no_child_hangs_and_each_window_arrives(api, start, figure):
    hangs = forks(start, FORKS, **FAST)
    assert hangs == 0
    sealed = drain(start, **FAST)
    found = windows(api)
    children = {name: many for name, many in found.items() if "child" in name}
    assert children == {f"child-{number}": 1 for number in range(FORKS)}
    assert arrived(api)[PARENT] == 1
    figure(
        "R12",
        f"{FORKS} forks under contention, 0 hangs, each child's window under one key, "
        f"parent's sent once, {sealed} sealed == delivered",
    )


@pytest.mark.flaky(reruns=1)
def test_the_control_a_child_that_keeps_its_parent_s_state_is_seen(api, start, figure):
    hangs = forks(start, FORKS_OF_THE_CONTROL, mutant="no_new_start")
    assert hangs > 0
    figure("R12n", f"no new start: {hangs} hangs")


def test_the_control_a_child_that_keeps_its_parent_s_windows_sends_them(
    api, start, figure
):
    # In memory, for the outbox takes a window with a journal once.
    forks(start, 1, mutant="keep_windows", PEAKHOLD_DURABILITY="memory")
    assert arrived(api)[PARENT] == 2
    figure("R12n", "kept windows: the parent's sent twice")


def test_no_child_hangs_that_is_forked_amid_the_first_frames(figure):
    assert forks_amid_first_frames(COLD_PROCESSES) == 0
    figure("R12", f"forks amid first frames: {COLD_PROCESSES} processes, 0 hangs")


def test_the_control_a_child_forked_while_something_is_made_once_is_seen(figure):
    hangs = forks_amid_first_frames(COLD_PROCESSES_OF_THE_CONTROL, mutant="made_once")
    assert hangs > 0
    figure("R12n", f"something made at its first use: {hangs} hangs")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_child_of_multiprocessing_reports_its_own_window_once(
    api, start, figure, method
):
    process = start("pool", method, 4)
    assert set(process.hear_until("exits").split()) == {"0"}
    assert process.ended() == 0, process.errors()
    expected = {f"child-{number}" for number in range(4)}
    expected |= {PARENT} if method == "fork" else set()
    assert arrived(api) == Counter(expected)
    figure("R12", f"multiprocessing {method}: 4 children, each window once")


def ask(port):
    """Return the body of an answer; None while nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    except ConnectionError:
        return None
    finally:
        connection.close()


def test_gunicorn_may_load_the_sink_before_it_forks(api, tmp_path, figure):
    pytest.importorskip("gunicorn")
    port = refusing_port()
    with (tmp_path / "log").open("w") as log:
        master = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore::DeprecationWarning"),
                *("-m", "gunicorn", "--preload", "--workers", "2", "--threads", "1"),
                *("--bind", f"127.0.0.1:{port}", "--chdir", PROGRAMS),
                *("--worker-tmp-dir", tmp_path, "--no-control-socket"),
                "served:application",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        assert eventually(lambda: ask(port)), (tmp_path / "log").read_text()
        workers = {ask(port).decode() for _ in range(60)}
        master.send_signal(signal.SIGTERM)
        assert master.wait(30) == 0, (tmp_path / "log").read_text()
    finally:
        master.kill()
        master.wait()
    expected = {f"worker-{worker}" for worker in workers} | {PARENT}
    assert set(arrived(api)) >= expected
    assert arrived(api)[PARENT] == 1
    figure("R12", f"gunicorn --preload: {len(workers)} workers, parent's window once")
