"""An API, a state directory, and programs that run against both."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from peakhold.testing import MisbehavingApi

PROGRAMS = Path(__file__).with_name("programs")
PATIENCE = 60.0
"""Seconds after which a program that should have ended is taken to hang."""


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No proxy, no key and no state of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("API_KEY", "OFFLINE_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROBOFLOW_API_KEY", "canary-key")
    monkeypatch.setenv("PEAKHOLD_SYSTEM_INFO", "off")
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PEAKHOLD_REQUESTS_PER_SECOND", "2000")
    # The programs import each other's functions by name, as job queues do.
    monkeypatch.setenv("PYTHONPATH", str(PROGRAMS))
    return monkeypatch


@pytest.fixture
def api(environment):
    with MisbehavingApi() as running:
        environment.setenv("API_BASE_URL", running.url)
        yield running
    assert running.problems == []


@pytest.fixture
def run(tmp_path):
    """Runs a program to its end."""

    def run(*command):
        answer = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    return run


@pytest.fixture
def eventually():
    """Waits until a condition holds; returns whether it does."""

    def wait(condition, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        return bool(condition())

    return wait


@pytest.fixture
def arrived(api):
    """Returns the class names of the reports, or the values of the metadata."""

    def arrived(kind):
        if kind == "report":
            return sorted({result["class_name"] for result in api.results()})
        return sorted({entry["field_value"] for entry in api.entries()})

    return arrived


@pytest.fixture
def deliver_the_rest(run, arrived):
    """Has a new process deliver what earlier ones left, until something is there."""

    def deliver(kind, expected):
        run(PROGRAMS / "next_process.py", 20 if arrived(kind) != expected else 0)
        return arrived(kind)

    return deliver
