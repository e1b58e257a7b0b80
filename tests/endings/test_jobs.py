"""Job queues whose workers leave by `os._exit`, and exit handlers that come late."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from conftest import PROGRAMS

from peakhold.testing import After, answer_json, refusing_port

NAMES = ["job-0", "job-1", "job-2"]
IN_JOBS = [
    pytest.param("aggregate", "report", id="report"),
    pytest.param("attach_twice", "metadata", id="metadata"),
]
AT_EXIT = [
    pytest.param("aggregate", "report", id="report"),
    pytest.param("attach", "metadata", id="metadata"),
]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture
def redis_server(tmp_path, eventually):
    """A server of its own, which keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server here (Debian: redis-server)")
    redis = pytest.importorskip("redis")
    port = refusing_port()
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )

    def answers():
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    with redis.Redis(port=port) as client:
        try:
            assert eventually(answers)
            yield client, f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def slow_api(api):
    """Answers so late that a job is over before its first request is."""
    api.always = After(1.0, answer_json({}))
    yield api
    api.always = None


@forks
@pytest.mark.parametrize(("call", "kind"), IN_JOBS)
def test_what_jobs_of_rq_accept_arrives(
    run, slow_api, redis_server, deliver_the_rest, call, kind
):
    client, url = redis_server
    queue = pytest.importorskip("rq").Queue(connection=client)
    jobs = [queue.enqueue(f"frames.{call}", name) for name in NAMES]
    run("-m", "rq.cli", "worker", "--burst", "--url", url)
    assert all(job.get_status(refresh=True) == "finished" for job in jobs)
    assert set(NAMES) <= set(deliver_the_rest(kind, NAMES))


@forks
@pytest.mark.parametrize(("call", "kind"), IN_JOBS)
def test_what_tasks_of_a_prefork_pool_accept_arrives(
    run, slow_api, deliver_the_rest, call, kind
):
    pytest.importorskip("billiard")
    run(PROGRAMS / "pool.py", call, *NAMES)
    assert set(NAMES) <= set(deliver_the_rest(kind, NAMES))


@pytest.mark.parametrize(("call", "kind"), AT_EXIT)
def test_what_the_last_exit_handler_accepts_arrives(
    run, arrived, deliver_the_rest, call, kind
):
    run(PROGRAMS / "late.py", call)
    assert "early" in arrived(kind)
    assert "late" in deliver_the_rest(kind, ["early", "late"])
