"""R12: forks are safe, and what the parent observed is sent once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from http.client import HTTPConnection

import pytest
from processes import PROGRAMS
from waiting import eventually

from peakhold.testing import refusing_port

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORKS = 500
FORKS_OF_THE_CONTROL = 10
PARENT = "parent-once"


def arrived(api):
    return Counter(result["class_name"] for result in api.results())


def forks(start, number, **options):
    """Fork under contention; returns how many children hung."""
    process = start("forks", number, **options)
    hangs = int(process.hear_until("hangs", timeout=300))
    process.ended()
    return hangs


def wrong(api, number):
    """Return the windows that were not sent as often as they should."""
    names = arrived(api)
    in_order = [f"child-{n}" for n in range(0, number, 25)]
    expected = Counter([PARENT, *in_order])
    seen = {n for n in names if n == PARENT or n.startswith("child")}
    return {n for n in seen | set(expected) if names[n] != expected[n]}


def test_no_child_hangs_and_the_parent_s_window_is_sent_once(api, start, figure):
    hangs = forks(start, FORKS)
    assert hangs == 0
    assert wrong(api, FORKS) == set()
    figure("R12", f"{FORKS} forks under contention, 0 hangs, parent's window once")


def test_the_control_a_child_that_keeps_its_parent_s_state_is_seen(api, start):
    assert forks(start, FORKS_OF_THE_CONTROL, mutant="no_new_start") > 0
    assert wrong(api, FORKS_OF_THE_CONTROL) != set()


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
