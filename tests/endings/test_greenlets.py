"""Servers that patch the standard library after the application was imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from http.client import HTTPConnection

import pytest
from conftest import PATIENCE, PROGRAMS

from peakhold.testing import refusing_port


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
@pytest.mark.parametrize("number", [1, 20])
def test_what_greenlets_accept_arrives_though_the_patch_came_late(
    run, deliver_the_rest, library, number
):
    pytest.importorskip(library)
    run(PROGRAMS / "greenlets.py", library, number)
    expected = sorted(f"greenlet-{number}" for number in range(number))
    for kind in ("report", "metadata"):
        assert set(expected) <= set(deliver_the_rest(kind, expected))


def ask(port):
    """Return the body of an answer; None while nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def serve(tmp_path, eventually, worker_class):
    """Have gunicorn answer 20 requests, then stop it; returns the answers."""
    port = refusing_port()
    log = tmp_path / "log"
    with log.open("w") as file:
        master = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--preload", "-k", worker_class),
                *("--workers", "2", "--bind", f"127.0.0.1:{port}"),
                *("--worker-tmp-dir", tmp_path, "--graceful-timeout", "10"),
                *("--no-control-socket", "served:application"),
            ],
            cwd=tmp_path,
            stdout=file,
            stderr=file,
        )
    try:
        assert eventually(lambda: ask(port)), log.read_text()
        answers = [ask(port) for _ in range(20)]
        master.send_signal(signal.SIGTERM)
        assert master.wait(PATIENCE) == 0, log.read_text()
    finally:
        master.kill()
        master.wait()
    assert None not in answers, log.read_text()
    return answers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn forks")
@pytest.mark.parametrize(
    "worker_class",
    [
        "gevent",
        "gthread",  # the control: the same without a patch
    ],
)
def test_what_workers_of_gunicorn_accept_arrives(
    api, tmp_path, eventually, deliver_the_rest, worker_class
):
    answers = set(serve(tmp_path, eventually, worker_class))
    for kind in ("report", "metadata"):
        assert answers <= set(deliver_the_rest(kind, sorted(answers)))
