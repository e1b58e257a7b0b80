"""What every promise needs: a seed that is told, processes, servers, and its figure."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict

import pytest
from conserving import Books
from processes import Processes

from peakhold.testing import MisbehavingApi

BOOKS = Books()
FIGURES = defaultdict(list)
SEED_VARIABLE = "PEAKHOLD_FAULTS_SEED"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No proxy, no key and no state of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("ROBOFLOW_API_KEY", "API_KEY", "OFFLINE_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEAKHOLD_SYSTEM_INFO", "off")
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(tmp_path / "state"))
    # Nobody answers there: no test may leave this machine, whatever it forgets.
    monkeypatch.setenv("API_BASE_URL", "http://127.0.0.1:1")
    return monkeypatch


@pytest.fixture(autouse=True)
def conservation(request, tmp_path):
    """After the test, every seal in its outboxes is accounted for (R21)."""
    yield
    if request.node.get_closest_marker("unbalanced") is None:
        assert BOOKS.check(tmp_path) == 0


@pytest.fixture
def state(tmp_path):
    """The state directory of the test and its processes."""
    return tmp_path / "state"


@pytest.fixture
def seed(capsys):
    """Where the randomness of a test comes from; set PEAKHOLD_FAULTS_SEED to repeat."""
    chosen = os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(10**9)
    _print(capsys, f"{SEED_VARIABLE}={chosen}")
    return int(chosen)


@pytest.fixture
def api(environment):
    with MisbehavingApi() as running:
        environment.setenv("API_BASE_URL", running.url)
        yield running
    assert running.problems == []


@pytest.fixture
def start():
    """Starts programs of `programs/`, and ends those that a failing test left."""
    processes = Processes()
    yield processes.start
    processes.end()


@pytest.fixture
def figure(capsys):
    """Tells the figure of a promise: now, and in the table at the end."""
    begin = time.monotonic()

    def tell(promise, text):
        text = f"{text}, {time.monotonic() - begin:.0f} s"
        FIGURES[promise].append(text)
        _print(capsys, f"{promise}: {text}")

    return tell


def _print(capsys, line):
    with capsys.disabled():
        sys.stdout.write(f"\n{line} ")
        sys.stdout.flush()


def pytest_terminal_summary(terminalreporter):
    """Show a line for each promise, and one for its controls."""
    if BOOKS.outboxes:
        FIGURES["R21"].append(
            f"{BOOKS.outboxes} outboxes, {BOOKS.sealed} sealed, 0 unexplained"
        )
    if FIGURES:
        terminalreporter.section("figures")
        for promise in sorted(FIGURES, key=lambda name: (int(name.strip("Rn")), name)):
            terminalreporter.write_line(f"{promise}: {'; '.join(FIGURES[promise])}")
