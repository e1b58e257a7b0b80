"""A running monitor, a clock to move, and a client that sends what it is told."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from peakhold.monitor import MonitorServer

NOON = datetime(2026, 3, 14, 12, 0, 0, tzinfo=timezone.utc)


@dataclass
class Clock:
    """Time as the monitor sees it: stands still until moved."""

    now: datetime = NOON

    def __call__(self) -> float:
        return self.now.timestamp()

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Api:
    """The endpoints of one monitor, over a real socket."""

    url: str
    workspace: str = "local"
    key: str = "any-key"
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request on a connection of its own; `body` JSON unless bytes."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        with closing(connection):
            connection.request(method, path, body, {**self.headers, **named})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def report(self, body: Any, **headers: str) -> Answer:
        path = f"/{self.workspace}/inference-stats?api_key={self.key}"
        return self.send("POST", path, body, **headers)

    def metadata(self, body: Any, **headers: str) -> Answer:
        path = f"/{self.workspace}/inference-stats/metadata"
        return self.send(
            "POST", f"{path}?api_key={self.key}&nocache=true", body, **headers
        )

    def statistics(self, start: datetime, end: datetime, models: str = "") -> Answer:
        query = {
            "api_key": self.key,
            "startTime": f"{start:%Y-%m-%d %H:%M:%S}",
            "endTime": f"{end:%Y-%m-%d %H:%M:%S}",
            **({"modelNames": models} if models else {}),
        }
        return self.send("GET", f"/{self.workspace}/inference-stats?{urlencode(query)}")

    def counts(self) -> int:
        """Inference results around the clock's start, whatever the model."""
        day = timedelta(days=365)
        return self.statistics(NOON - day, NOON + day).json["num_inferences"]

    def dashboard(self, **query: str) -> Answer:
        return self.send("GET", f"/dashboard?{urlencode(query)}")


def build_row(
    class_name: str = "cat",
    confidence: Any = 0.5,
    *,
    model_id: str = "animals/3",
    inference_id: str = "inference-1",
) -> dict[str, Any]:
    """One entry of `inference_results`."""
    return {
        "model_id": model_id,
        "class_name": class_name,
        "confidence": confidence,
        "inference_id": inference_id,
        "model_type": "object-detection",
    }


def build_report(*rows: dict[str, Any]) -> dict[str, Any]:
    """A report as the aggregator block sends it."""
    return {
        "timestamp": "2026-03-14T12:00:00.123456",
        "source": "workflow",
        "source_info": "ModelMonitoringInferenceAggregatorBlockV1",
        "device_id": None,
        "inference_server_version": "1.0.0",
        "platform": "Linux",
        "platform_release": "6.1",
        "platform_version": "#1 SMP",
        "architecture": "x86_64",
        "hostname": "camera-7",
        "ip_address": "127.0.0.1",
        "mac_address": "00:00:00:00:00:00",
        "processor": "",
        "inference_results": list(rows),
    }


def build_metadata(*entries: tuple[list[str], str, str]) -> dict[str, Any]:
    """A metadata request of (inference ids, field name, field value)."""
    return {
        "data": [
            {"inference_ids": ids, "field_name": name, "field_value": value}
            for ids, name, value in entries
        ]
    }


@pytest.fixture
def row():
    return build_row


@pytest.fixture
def report():
    return build_report


@pytest.fixture
def metadata():
    return build_metadata


@pytest.fixture
def make_api():
    return Api


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def data_file(tmp_path):
    return tmp_path / "monitor.db"


@pytest.fixture
def monitor(clock, data_file):
    with MonitorServer(data=data_file, clock=clock) as server:
        yield server


@pytest.fixture
def api(monitor):
    return Api(monitor.url)


@pytest.fixture(scope="module")
def shared_monitor():
    """For tests in which nothing is stored: stopping a server takes 0.2 s each."""
    with MonitorServer() as server:
        yield server


@pytest.fixture
def refusing_api(shared_monitor):
    """An API that must have stored nothing when the test is over."""
    before = (
        shared_monitor.store.requests("report"),
        shared_monitor.store.requests("metadata"),
    )
    yield Api(shared_monitor.url)
    assert before == (
        shared_monitor.store.requests("report"),
        shared_monitor.store.requests("metadata"),
    )
