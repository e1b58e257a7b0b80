"""Blocks on a dispatcher of the test's own, and the servers they report to."""

from __future__ import annotations

import uuid

import pytest

from peakhold.blocks import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)
from peakhold.delivery import Dispatcher, process
from peakhold.testing import MisbehavingApi

CACHE_KEY = (
    "workflows:steps_cache:"
    "roboflow_core/model_monitoring_inference_aggregator@v1:{}:last_report_time"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("ROBOFLOW_API_KEY", "API_KEY", "OFFLINE_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEAKHOLD_SYSTEM_INFO", "off")
    # Nobody answers there: no test may leave this machine, whatever it forgets.
    monkeypatch.setenv("API_BASE_URL", "http://127.0.0.1:1")
    return monkeypatch


@pytest.fixture(autouse=True)
def dispatcher(monkeypatch):
    """The process's dispatcher for this test; backoff starts at 0.05 s."""
    fresh = Dispatcher(jitter=lambda low, high: 0.05)
    monkeypatch.setattr(process, "_current", fresh)
    yield fresh
    fresh.close(0)


@pytest.fixture
def api(environment):
    with MisbehavingApi() as running:
        environment.setenv("API_BASE_URL", running.url)
        yield running
    assert running.problems == []


@pytest.fixture
def key():
    """A unique_aggregator_key of the test's own."""
    return f"window-{uuid.uuid4().hex}"


@pytest.fixture
def cache_key(key):
    return CACHE_KEY.format(key)


@pytest.fixture
def overdue(cache, cache_key):
    """The cache, with a last report of long ago: the next run is in range."""
    cache.values[cache_key] = "2001-02-03T04:05:06.789000"
    return cache


@pytest.fixture
def aggregator(api_key, cache):
    """Makes aggregator blocks; what is not given is the test's."""

    def make(**arguments):
        arguments = {"api_key": api_key, "cache": cache, **arguments}
        return ModelMonitoringInferenceAggregatorBlockV1(**arguments)

    return make


@pytest.fixture
def metadata_block(api_key, cache):
    """Makes custom metadata blocks; what is not given is the test's."""

    def make(**arguments):
        arguments = {"api_key": api_key, "cache": cache, **arguments}
        return RoboflowCustomMetadataBlockV1(**arguments)

    return make


@pytest.fixture
def frame():
    """A single-label classification: a class, its confidence and its inference id."""

    def make(class_name="dog", confidence=0.5, inference_id="id"):
        return {
            "inference_id": inference_id,
            "prediction_type": "classification",
            "predictions": [{"class": class_name, "confidence": confidence}],
        }

    return make


@pytest.fixture
def run(key, frame):
    """Runs an aggregator with what the test does not care about filled in."""

    def run_block(block, predictions="frame", **arguments):
        arguments = {
            "fire_and_forget": False,
            "predictions": frame() if predictions == "frame" else predictions,
            "frequency": 5,
            "unique_aggregator_key": key,
            "model_id": "project/3",
            **arguments,
        }
        return block.run(**arguments)

    return run_block
