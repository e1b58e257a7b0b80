"""What the exporters need, and what happens where it is not installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from peakhold.metrics.figures import OTHER, without_secrets

LIBRARIES = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry"}


def outcome(program):
    """Standard output of a new interpreter, and what it raised."""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return answer.stdout.strip(), (answer.stderr.strip().splitlines() or [""])[-1]


def modules_after(statement):
    names, raised = outcome(
        f"{statement}\nimport json, sys\nprint(json.dumps([*sys.modules]))"
    )
    assert raised == ""
    return set(json.loads(names))


@pytest.mark.parametrize("extra", LIBRARIES)
def test_a_missing_library_is_told_with_the_command_that_installs_it(extra):
    library = LIBRARIES[extra]
    program = f"import peakhold.metrics.{extra}; print('imported')"
    without = f"import sys; sys.modules[{library!r}] = None; {program}"
    printed, raised = outcome(without)
    assert printed == ""
    assert raised.startswith(f"ImportError: peakhold.metrics.{extra} needs {extra}-")
    assert f'pip install "peakhold[{extra}]"' in raised
    assert outcome(program) == ("imported", "")  # the control


def test_only_an_exporter_s_own_module_imports_its_library():
    libraries = set(LIBRARIES.values())
    statement = "import peakhold, peakhold.metrics, peakhold.metrics.figures"
    assert not libraries & modules_after(f"{statement}; peakhold.health")
    for extra, library in LIBRARIES.items():  # the control: they are found
        seen = modules_after(f"import peakhold.metrics.{extra}")
        assert libraries & seen == {library}


def test_opentelemetry_s_api_is_enough():
    program = """
import sys
sys.modules["opentelemetry.sdk"] = None
from peakhold.metrics.opentelemetry import register
register()
print("registered")
"""
    assert outcome(program) == ("registered", "")


def test_a_provider_that_is_set_later_has_the_figures():
    program = """
from peakhold.metrics.opentelemetry import register
register()
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
set_meter_provider(MeterProvider([reader]))
print("peakhold.records.sealed" in reader.get_metrics_data().to_json())
"""
    assert outcome(program) == ("True", "")


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://api.roboflow.com", "https://api.roboflow.com"),
        ("http://127.0.0.1:9001/v1", "http://127.0.0.1:9001/v1"),
        ("http://[::1]:9001", "http://[::1]:9001"),
        ("https://us@er:pa:ss@host:1/p", "https://host:1/p"),
        ("https://host/?api_key=secret", "https://host/"),
        ("https://host/api_key=secret", "https://host/api_key=***"),
        ("https://user:pass/word@host/", OTHER),
        ("user:secret@host/path", "host/path"),
        ("host?api_key=secret#f", "host"),
        ("module.Client.<locals>.Inner", "module.Client.<locals>.Inner"),
    ],
)
def test_an_endpoint_is_shown_without_secrets(endpoint, shown):
    assert without_secrets(endpoint) == shown
