"""Both sinks, end to end, against the monitor that ships with the package."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from peakhold.monitor import MonitorServer


@pytest.fixture
def monitor(environment):
    with MonitorServer() as running:
        environment.setenv("API_BASE_URL", running.url)
        yield running


def statistics(monitor):
    now = datetime.now(timezone.utc)
    query = urlencode(
        {
            "api_key": "any",
            "startTime": f"{now - timedelta(hours=1):%Y-%m-%d %H:%M:%S}",
            "endTime": f"{now + timedelta(hours=1):%Y-%m-%d %H:%M:%S}",
        }
    )
    with urlopen(f"{monitor.url}/local/inference-stats?{query}") as answer:
        return json.load(answer)


def test_what_the_sinks_saw_is_what_the_monitor_counts(
    monitor, aggregator, metadata_block, run, frame, overdue, dispatcher
):
    block, metadata = aggregator(), metadata_block()
    assert statistics(monitor)["inference_stats"] == []  # the control
    frames = [frame("dog", 0.25, "id1"), frame("cat", 0.75, "id2")]
    for predictions in frames:
        metadata.run(
            fire_and_forget=True,
            field_name="line",
            field_value="3",
            predictions=predictions,
        )
    assert run(block, frames[0])["message"] == "Data sent successfully"
    (window,) = block._windows.values()
    window.interval.last_report = float("-inf")
    overdue.values.update(
        {key: "2001-01-01" for key in overdue.values if key.endswith("report_time")}
    )
    assert run(block, frames[1], fire_and_forget=True)["error_status"] is False
    assert dispatcher.flush(5)
    found = {
        (row["model_name"], row["predicted_class"]): row["avg_confidence"]
        for row in statistics(monitor)["inference_stats"]
    }
    assert found == {("project", "dog"): 0.25, ("project", "cat"): 0.75}
    stored = monitor.store.requests("metadata")
    entries = [entry for item in stored for entry in json.loads(item.body)["data"]]
    ids = [inference_id for entry in entries for inference_id in entry["inference_ids"]]
    assert ids == ["id1", "id2"]
    assert {(e["field_name"], e["field_value"]) for e in entries} == {("line", "3")}
