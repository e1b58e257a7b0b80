"""The examples run in the hosts that they declare, into the monitor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from host import IN_PLACE, is_standalone

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

needs_engine = pytest.mark.skipif(
    not is_standalone(), reason="it is for roboflow-workflows without inference"
)
needs_pipeline = pytest.mark.skipif(
    find_spec("inference") is None, reason="it is for inference"
)
needs_server = pytest.mark.skipif(
    not (find_spec("inference") and find_spec("asgi_correlation_id")),
    reason="it is for inference-core[http]",
)


@pytest.mark.parametrize(
    ("name", "classes", "ids", "windows"),
    [
        pytest.param("opencv_loop.py", {"motion"}, None, 3),
        pytest.param("execution_engine.py", {"motion"}, 0, 3, marks=needs_engine),
        pytest.param("inference_pipeline.py", {"motion"}, 0, 3, marks=needs_pipeline),
        pytest.param(
            "http_server.py",
            {f"product-{number}" for number in range(10)},
            50,
            1,
            marks=needs_server,
        ),
    ],
)
def test_an_example_runs_and_its_windows_arrive(
    monitor, tmp_path, name, classes, ids, windows
):
    before = {
        kind: len(monitor.store.requests(kind)) for kind in ("report", "metadata")
    }
    # As a user starts it: the example itself puts the plugin in place.
    environment = {
        key: value for key, value in os.environ.items() if key not in IN_PLACE
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        env=environment | {"API_BASE_URL": monitor.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "what arrived: " in done.stdout

    def bodies(kind):
        requests = monitor.store.requests(kind)[before[kind] :]
        return [json.loads(request.body) for request in requests]

    reports = bodies("report")
    # How long the example lasts at one report a second; one rather than 50 is the point
    # of the server.
    assert windows <= len(reports) < 20
    found = {row["class_name"] for body in reports for row in body["inference_results"]}
    assert found == classes
    arrived = {
        inference_id
        for body in bodies("metadata")
        for entry in body["data"]
        for inference_id in entry["inference_ids"]
    }
    if ids is None:
        assert arrived
    else:
        assert len(arrived) == ids
