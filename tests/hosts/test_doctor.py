"""`peakhold doctor` and `peakhold env` where there is a real host."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from host import API_KEY, IN_PLACE, PLUGIN, is_standalone

INSTALLATION = ("extension", "numpy", "supervision", "host")
WAY = ("outbox", "api key", "endpoint", "clock", "workspace")


@pytest.fixture
def peakhold(monitor):
    """Run a command with the variables of this host, or others; None unsets one."""

    def run(*arguments, **changes):
        variables = {**os.environ, "API_BASE_URL": monitor.url, **IN_PLACE, **changes}
        ended = subprocess.run(
            [sys.executable, "-m", "peakhold.cli", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={name: value for name, value in variables.items() if value is not None},
        )
        assert API_KEY not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    return run


@pytest.fixture
def examine(peakhold):
    """Return exit code and findings of the doctor; its findings are of known checks."""

    def run(**changes):
        ended = peakhold("doctor", "--json", **changes)
        checks = json.loads(ended.stdout)["checks"]
        findings = {check["check"]: check for check in checks}
        assert findings["host"]["text"].split()[0] in {
            "inference-core",
            "roboflow-workflows",
        }
        for finding in checks:
            assert bool(finding["remedy"]) == (finding["status"] != "ok")
        return ended.returncode, {
            check: finding["status"] for check, finding in findings.items()
        }

    return run


def sound():
    """The findings where nothing is wrong."""
    plugin = (
        {"plugin": "warn"} if is_standalone() else {"plugin": "ok", "in place": "ok"}
    )
    return {**dict.fromkeys(INSTALLATION, "ok"), **plugin, **dict.fromkeys(WAY, "ok")}


def test_the_host_of_this_environment_is_sound(examine):
    assert examine() == (0, sound())


def test_without_the_variables_only_a_host_that_reads_them_fails(examine):
    code, statuses = examine(**dict.fromkeys(IN_PLACE))

    if is_standalone():
        assert (code, statuses) == (0, sound())
    else:
        assert (code, statuses) == (
            1,
            {**sound(), "plugin": "fail", "in place": "warn"},
        )


def test_without_key_and_network_there_is_a_line_for_each(examine):
    code, statuses = examine(
        ROBOFLOW_API_KEY=None, API_KEY=None, API_BASE_URL="http://127.0.0.1:9"
    )

    way = {"api key": "fail", "endpoint": "fail", "clock": "warn", "workspace": "warn"}
    assert (code, statuses) == (1, {**sound(), **way})


def test_env_prints_what_the_doctor_wants(peakhold):
    described = json.loads(peakhold("env", "--json", **dict.fromkeys(IN_PLACE)).stdout)

    if is_standalone():
        assert described["variables"] == {}
        assert described["call"] == f"{PLUGIN}.configure()"
    else:
        assert described["variables"] == IN_PLACE
        assert described["call"] is None
