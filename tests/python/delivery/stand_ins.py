"""Stand-ins for what delivery and the blocks talk to."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

NAME = "misbehaving_server"
if NAME not in sys.modules:
    _path = Path(__file__).parents[1] / "support" / f"{NAME}.py"
    _spec = spec_from_file_location(NAME, _path)
    sys.modules[NAME] = _module = module_from_spec(_spec)
    _spec.loader.exec_module(_module)

from misbehaving_server import (  # noqa: E402 - loaded by its path above
    Computed,
    MisbehavingServer,
    answer_json,
)

from peakhold.delivery.record import (  # noqa: E402 - see above
    MetadataEntry,
    seal_metadata,
    seal_report,
)


class Api:
    """A Roboflow API on loopback that answers well unless told otherwise.

    Attributes:
        lookups: What happens to workspace lookups, one each; then they succeed.
        failures: What happens to POST requests, one each; then they succeed.
        always: What happens to every POST request if it is not None.
        workspace: What lookups answer.
    """

    def __init__(self, server):
        self.server = server
        self.lookups = []
        self.failures = []
        self.always = None
        self.workspace = "spaceship"
        self.answered = []
        server.otherwise = Computed(self._route)

    @property
    def url(self):
        return self.server.url

    def _route(self, request):
        if request.method == "GET":
            if self.lookups:
                return self.lookups.pop(0)
            return answer_json({"workspace": self.workspace})
        if self.always is not None:
            return self.always
        if self.failures:
            return self.failures.pop(0)
        self.answered.append(request)
        return answer_json({})

    def posts(self, *, kind=None):
        """Every POST that arrived, whatever was answered."""
        return self._of_kind(self.server.requests, kind)

    def accepted(self, *, kind=None):
        """Every POST that was answered with success."""
        return self._of_kind(self.answered, kind)

    def _of_kind(self, requests, kind):
        ends = {"report": "/inference-stats", "metadata": "/metadata"}
        return [
            request
            for request in list(requests)
            if request.method == "POST"
            and (kind is None or request.path.endswith(ends[kind]))
        ]

    def lookup_count(self):
        return sum(request.method == "GET" for request in self.server.requests)

    def entries(self):
        """Every accepted metadata entry."""
        return [
            entry
            for request in self.accepted(kind="metadata")
            for entry in request.json()["data"]
        ]


class RecordingClient:
    """A platform client of a host: named operations only, every call recorded."""

    endpoint = "http://recording.invalid"

    def __init__(self):
        self.calls = []
        self.failures = []
        self.workspace = "spaceship"
        self.lookup_failures = []
        self.threads = []

    def _called(self, name, args, kwargs):
        self.calls.append((name, args, kwargs))
        self.threads.append(threading.current_thread())

    def named(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]

    def reports(self):
        calls = self.named("send_inference_results_to_model_monitoring")
        return [args[2] for args, _ in calls]

    def get_roboflow_workspace(self, *args, **kwargs):
        self._called("get_roboflow_workspace", args, kwargs)
        if self.lookup_failures:
            raise self.lookup_failures.pop(0)
        return self.workspace

    def send_inference_results_to_model_monitoring(self, *args, **kwargs):
        self._called("send_inference_results_to_model_monitoring", args, kwargs)
        if self.failures:
            failure = self.failures.pop(0)
            if failure:
                raise failure

    def add_custom_metadata(self, *args, **kwargs):
        self._called("add_custom_metadata", args, kwargs)
        if self.failures:
            failure = self.failures.pop(0)
            if failure:
                raise failure

    def get_device_id(self):
        return "device-7"

    def get_server_version(self):
        return "1.2.3"

    def get_system_info(self):
        return {
            "platform": "Linux",
            "platform_release": "6",
            "platform_version": "#1",
            "architecture": "x86_64",
            "hostname": "camera",
            "ip_address": "127.0.0.1",
            "mac_address": "00:00:00:00:00:00",
            "processor": "",
        }


class StatusError(Exception):
    """A failure with the attributes of peakhold's own errors."""

    def __init__(self, status=None, retry_after=None, text="no luck"):
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class Clock:
    """Monotonic time that passes when told."""

    def __init__(self, now=1_000.0):
        self.now = now

    def __call__(self):
        return self.now


@dataclass(frozen=True)
class PlainSnapshot:
    """A window snapshot in plain Python: the best confidence of each class."""

    best: dict = field(default_factory=dict)

    @property
    def peaks(self):
        return len(self.best)

    @property
    def nbytes(self):
        return 200 * len(self.best)

    def report(self):
        return [
            {
                "model_id": "m/1",
                "class_name": name,
                "confidence": confidence,
                "inference_id": f"id-{name}",
                "model_type": "object-detection",
            }
            for name, confidence in self.best.items()
        ]

    def report_json(self, limit):
        runs = [""]
        for line in self.report():
            text = json.dumps(line, separators=(",", ":"))
            if runs[-1] and len(runs[-1]) + 1 + len(text) > limit:
                runs.append(text)
            else:
                runs[-1] += "," + text if runs[-1] else text
        return [run.encode() for run in runs]

    def merge(self, other):
        merged = dict(self.best)
        for name, confidence in other.best.items():
            merged[name] = max(confidence, merged.get(name, 0.0))
        return PlainSnapshot(merged)


class DictCache:
    """A host's cache: counts what is asked of it."""

    def __init__(self):
        self.values = {}
        self.expiries = {}
        self.reads = []
        self.writes = []

    def get(self, key):
        self.reads.append(key)
        return self.values.get(key)

    def set(self, key, value, expire=None):
        self.writes.append((key, value))
        self.values[key] = value
        self.expiries[key] = expire


class RaisingCache:
    """A cache whose server is gone."""

    def get(self, key):
        raise ConnectionError("cache is gone")

    def set(self, key, value, expire=None):
        raise ConnectionError("cache is gone")


def eventually(condition, timeout=5.0):
    """Wait until a condition holds; returns whether it does."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def conserved(counts):
    """Whether every seal is accounted for."""
    kept = counts.pending + counts.parked + counts.dead
    dropped = sum(counts.dropped.values())
    return counts.sealed == counts.delivered + kept + dropped


def results_of(request):
    return json.loads(request.body)["inference_results"]


def report(sender, window="w", on_first_success=None, **best):
    """The record of a window with these classes and confidences."""
    snapshot = PlainSnapshot(best or {"a": 0.5})
    return seal_report(sender.destination, window, snapshot, on_first_success)


def metadata(sender, *values):
    """The record of one id with several values of a field."""
    entries = tuple(MetadataEntry(("id",), "f", value) for value in values)
    return seal_metadata(sender.destination, entries)


def sent(client):
    """How many reports a `RecordingClient` was given."""
    return len(client.reports())


def running_api():
    """A server, not entered yet."""
    return MisbehavingServer()
