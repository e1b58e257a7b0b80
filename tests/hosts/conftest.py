"""One host and one monitor for all tests: importing a host takes many seconds."""

from __future__ import annotations

import os
import tempfile
import time

import host as hosting
import pytest

from peakhold.monitor import MonitorServer

_MONITOR = pytest.StashKey[MonitorServer]()
_STATE = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config):
    """Start the monitor and put the plugin in place before any test is imported.

    Hosts read their configuration once, when they are imported.
    """
    state = config.stash[_STATE] = tempfile.TemporaryDirectory(prefix="peakhold-hosts-")
    os.environ["PEAKHOLD_STATE_DIR"] = state.name
    # Compared with the reference, which knows reports only.
    os.environ["PEAKHOLD_WINDOWS"] = "off"
    if hosting.is_installed():
        monitor = config.stash[_MONITOR] = MonitorServer(workspace="local")
        monitor.start()
        hosting.prepare(monitor.url)


def pytest_unconfigure(config):
    if _MONITOR in config.stash:
        config.stash[_MONITOR].stop()
    config.stash[_STATE].cleanup()


def pytest_collection_modifyitems(items):
    if not hosting.is_installed():
        for item in items:
            item.add_marker(pytest.mark.skip("there is no workflow host here"))


@pytest.fixture(scope="session")
def host():
    return hosting.Host()


@pytest.fixture(scope="session")
def monitor(pytestconfig):
    return pytestconfig.stash[_MONITOR]


@pytest.fixture
def eventually():
    """Waits until a condition holds and returns its value."""

    def wait(condition, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not (value := condition()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return value

    return wait
