"""`peakhold.flush`, for the end of a job."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

import peakhold
from peakhold.testing import refuse

JOB = """
import os, sys, peakhold
frame = {
    "inference_id": "id-1",
    "prediction_type": "classification",
    "predictions": [{"class": "car", "confidence": 0.5}],
}
peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key="canary-key").run(
    fire_and_forget=True,
    predictions=frame,
    frequency=60,
    unique_aggregator_key="k",
    model_id="m/1",
)
peakhold.RoboflowCustomMetadataBlockV1(api_key="canary-key").run(
    fire_and_forget=True, field_name="f", field_value="v", predictions=frame
)
flushed = peakhold.flush(30) if sys.argv[1] == "flush" else None
print(flushed, flush=True)
os._exit(0)
"""


def frame(name):
    return {
        "inference_id": f"id-{name}",
        "prediction_type": "classification",
        "predictions": [{"class": name, "confidence": 0.5}],
    }


@pytest.fixture
def use(aggregator, metadata_block, key):
    """Calls both sinks with a frame of one class."""
    windows, fields = aggregator(), metadata_block()

    def use(name):
        windows.run(True, frame(name), 60, key, "m/1")
        fields.run(True, "field", name, frame(name))

    return use


def classes(api):
    return [result["class_name"] for result in api.results()]


def test_flush_delivers_open_windows_and_metadata(api, use):
    use("car")
    assert peakhold.flush(30) is True
    assert classes(api) == ["car"]
    assert [entry["field_value"] for entry in api.entries()] == ["car"]


def test_a_flushed_window_goes_on_empty(api, use):
    use("car")
    peakhold.flush(30)
    use("bus")
    assert peakhold.flush(30) is True
    assert classes(api) == ["car", "bus"]


def test_what_is_refused_is_left_and_flush_says_so(api, use):
    api.always = refuse(503)
    use("car")
    assert peakhold.flush(0.2) is False
    api.always = None
    assert peakhold.flush(30) is True
    assert classes(api) == ["car"]


def test_flush_does_not_wait_for_what_is_parked(api, use):
    api.always = refuse(401)
    use("car")
    assert peakhold.flush(30) is False


def test_with_nothing_to_deliver_flush_sends_nothing(api):
    assert peakhold.flush(30) is True
    assert api.requests == []


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_a_timeout_that_is_not_a_time_is_refused(timeout):
    with pytest.raises(ValueError, match="number of seconds"):
        peakhold.flush(timeout)


@pytest.mark.parametrize("end", ["flush", "leave"])
def test_a_flushed_job_may_leave_without_its_exit_handlers(api, end):
    # In memory, so that no other process could deliver it; "leave" is the control.
    answer = subprocess.run(
        [sys.executable, "-c", JOB, end],
        env=os.environ | {"PEAKHOLD_DURABILITY": "memory"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout.strip() == str({"flush": True, "leave": None}[end])
    assert len(api.posts(kind="report")) == (end == "flush")
