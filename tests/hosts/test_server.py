"""The HTTP server answers 200 requests, and a window holds many of them.

A server makes the blocks of a workflow anew for each request.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
from host import AGGREGATOR, API_KEY, IN_PLACE, METADATA, QUIET
from redis_server import PROGRAM, WITHOUT, RedisServer

pytestmark = pytest.mark.skipif(
    not (find_spec("inference") and find_spec("asgi_correlation_id")),
    reason="this host has no HTTP server, it comes with inference-core[http]",
)

REQUESTS = 200
FREQUENCY = 2
START = 240
"""Seconds for the server to answer for the first time."""

SPECIFICATION = {
    "version": "1.4.0",
    "inputs": [
        {
            "type": "WorkflowBatchInput",
            "name": "predictions",
            "kind": ["classification_prediction"],
        },
        {"type": "WorkflowParameter", "name": "model"},
    ],
    "steps": [
        {
            "type": AGGREGATOR,
            "name": "monitoring",
            "predictions": "$inputs.predictions",
            "model_id": "$inputs.model",
            "frequency": FREQUENCY,
            "unique_aggregator_key": "server",
        },
        {
            "type": METADATA,
            "name": "metadata",
            "predictions": "$inputs.predictions",
            "field_name": "server-test",
            "field_value": "200 requests",
        },
    ],
    "outputs": [
        {"type": "JsonField", "name": name, "selector": f"$steps.{name}.message"}
        for name in ("monitoring", "metadata")
    ],
}


def body(number, model="server/1", **settings):
    name = f"class-{number:03}"
    prediction = {
        "image": {"width": 10, "height": 10},
        "predictions": [{"class": name, "class_id": 0, "confidence": 0.5}],
        "top": name,
        "confidence": 0.5,
        "inference_id": f"request-{number}",
        "prediction_type": "classification",
    }
    return {
        "specification": SPECIFICATION,
        "api_key": API_KEY,
        "inputs": {"predictions": [prediction], "model": model},
        **settings,
    }


@pytest.fixture(scope="module")
def server(monitor, tmp_path_factory):
    """Start the server with the two variables of the README, as a process."""
    with serving(monitor, tmp_path_factory.mktemp("server")) as (url, _):
        yield url


@contextmanager
def serving(monitor, directory, workers=1, **variables):
    """Run a server; yields its address and the file of its log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **QUIET,
        **IN_PLACE,
        "API_BASE_URL": monitor.url,
        "ROBOFLOW_API_KEY": API_KEY,
        "MODEL_CACHE_DIR": str(directory / "models"),
        **variables,
    }
    log = directory / "server.log"
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(
            [
                sys.executable,
                *(Path(__file__).with_name("server_app.py"), str(port), str(workers)),
            ],
            cwd=directory,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url, process, log)
            yield url, log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url, process, log):
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")[-4000:]
        try:
            requests.get(f"{url}/info", timeout=5)
        except requests.RequestException:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text(encoding="utf-8")[-4000:])


def post(session, url, content):
    answer = session.post(f"{url}/workflows/run", json=content, timeout=120)
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    return output


def results(monitor, model="server/1"):
    """Return the rows of each report of the server."""
    return [rows for _, rows in reports(monitor, model)]


def reports(monitor, model):
    """Return time and rows of each report that has rows of a model."""
    bodies = [json.loads(each.body) for each in monitor.store.requests("report")]
    return [
        (body["timestamp"], found)
        for body in bodies
        if (found := [r for r in body["inference_results"] if r["model_id"] == model])
    ]


def test_the_windows_hold_the_classes_of_all_requests(server, monitor, eventually):
    with requests.Session() as session, ThreadPoolExecutor(4) as pool:
        # The control: what the sinks are told to leave alone does not arrive.
        silent = post(session, server, body(999, disable_sinks=True))
        assert silent["monitoring"] == "Sink was disabled by workflow execution policy"
        start = time.monotonic()
        outputs = list(
            pool.map(lambda n: post(session, server, body(n)), range(REQUESTS))
        )
        took = time.monotonic() - start
    assert {output["monitoring"] for output in outputs} <= {
        "Not in reporting range, skipping report. (Ok)",
        "Reporting happens in the background task",
    }
    assert {output["metadata"] for output in outputs} == {
        "Registration happens in the background task"
    }
    expected = [f"class-{number:03}" for number in range(REQUESTS)]

    def classes():
        return sorted(row["class_name"] for rows in results(monitor) for row in rows)

    eventually(lambda: len(classes()) >= REQUESTS, seconds=20)
    assert classes() == expected
    # One report an interval and the last one, rather than one a request.
    assert len(results(monitor)) <= took / FREQUENCY + 2
    assert max(map(len, results(monitor))) > 1
    ids = {f"request-{number}" for number in range(REQUESTS)}

    def entries():
        return [
            entry
            for request in monitor.store.requests("metadata")
            for entry in json.loads(request.body)["data"]
            if entry["field_name"] == "server-test"
        ]

    def arrived():
        return [
            inference_id
            for entry in entries()
            for inference_id in entry["inference_ids"]
        ]

    eventually(lambda: len(arrived()) >= REQUESTS, seconds=30)
    assert sorted(arrived()) == sorted(ids)
    assert len(entries()) < REQUESTS


def most_at_once(times):
    """Return how many reports were made in one interval at most."""
    seconds = [datetime.fromisoformat(at).timestamp() for at in times]
    return max(Counter(at // FREQUENCY for at in seconds).values())


WORKERS = 4
MANY = 500
PODS = 3
HINT = "PEAKHOLD_SHARE=host"


ALL = bool(os.environ.get("PEAKHOLD_TEST_LONG"))
"""Whether to test what takes minutes, too."""


@pytest.mark.parametrize(
    "share",
    [
        "host",
        pytest.param("", marks=pytest.mark.skipif(not ALL, reason="a long test")),
    ],
)
def test_four_workers_make_one_report_an_epoch(monitor, tmp_path, eventually, share):
    """The control is the same without sharing: each worker makes its own."""
    model = f"workers-{share}/1"
    variables = {"PEAKHOLD_SHARE": share, "PEAKHOLD_STATE_DIR": str(tmp_path / "state")}
    with (
        serving(monitor, tmp_path, WORKERS, **variables) as (url, log),
        ThreadPoolExecutor(2 * WORKERS) as pool,
    ):

        def send(number):  # on a connection of its own, so that any worker takes it
            with requests.Session() as session:
                post(session, url, body(number, model))

        start = time.monotonic()
        list(pool.map(send, range(MANY)))
        took = time.monotonic() - start

        def classes():
            found = results(monitor, model)
            return sorted(row["class_name"] for rows in found for row in rows)

        def is_told():
            send(0)
            return HINT in log.read_text(encoding="utf-8")

        eventually(lambda: len(classes()) >= MANY, seconds=20)
        assert classes() == [f"class-{number:03}" for number in range(MANY)]
        times = [at for at, _ in reports(monitor, model)]
        if share:
            assert len(times) == len(set(times)) <= took / FREQUENCY + 2
            assert HINT not in log.read_text(encoding="utf-8")
        else:
            assert most_at_once(times) > 1
            assert eventually(is_told, seconds=60)


@pytest.mark.skipif(not ALL, reason="a long test")
@pytest.mark.skipif(PROGRAM is None, reason=WITHOUT)
@pytest.mark.parametrize("share", ["redis", ""])
def test_three_pods_make_one_report_an_epoch(monitor, tmp_path, eventually, share):
    """The control is the same without sharing."""
    model = f"pods-{share}/1"
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        urls = []
        for number in range(PODS):
            directory = tmp_path / f"pod-{number}"
            directory.mkdir()
            variables = {
                "PEAKHOLD_SHARE": share and redis.url,
                "PEAKHOLD_STATE_DIR": str(directory / "state"),
            }
            serve = serving(monitor, directory, **variables)
            urls.append(stack.enter_context(serve)[0])
        pool = stack.enter_context(ThreadPoolExecutor(2 * PODS))

        def send(number):
            with requests.Session() as session:
                post(session, urls[number % PODS], body(number, model))

        start = time.monotonic()
        list(pool.map(send, range(MANY)))
        took = time.monotonic() - start

        def classes():
            found = results(monitor, model)
            return sorted(row["class_name"] for rows in found for row in rows)

        eventually(lambda: len(classes()) >= MANY, seconds=20)
        assert classes() == [f"class-{number:03}" for number in range(MANY)]
        times = [at for at, _ in reports(monitor, model)]
        if share:
            assert len(times) == len(set(times)) <= took / FREQUENCY + 2
        else:
            assert most_at_once(times) > 1
