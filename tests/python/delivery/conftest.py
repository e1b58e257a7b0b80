"""Dispatchers of their own, stepped by the test or with a worker, and servers."""

from __future__ import annotations

import threading

import pytest

from peakhold.delivery import Dispatcher, Sender
from peakhold.roboflow import RoboflowClient, Settings
from peakhold.testing import MisbehavingApi


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def api():
    with MisbehavingApi() as running:
        yield running
    assert running.problems == []


@pytest.fixture
def stepped(clock):
    """A dispatcher without a thread, on the test's clock, that draws no jitter."""
    return Dispatcher(clock=clock, jitter=lambda low, high: high, worker=False)


@pytest.fixture
def working():
    """A dispatcher with its worker; backoff starts at a twentieth of a second."""
    dispatcher = Dispatcher(jitter=lambda low, high: 0.05)
    yield dispatcher
    dispatcher.close(0)


@pytest.fixture
def new_threads():
    """Returns the threads of a name that were started in this test, and live."""
    before = set(threading.enumerate())

    def found(name="peakhold"):
        live = set(threading.enumerate())
        return [each for each in live - before if each.name == name]

    return found


@pytest.fixture
def own_sender(api, api_key, cache):
    """Sends with the package's client to the server of `api`."""
    settings = Settings(api_base_url=api.url, read_timeout=5, system_info=False)
    client = RoboflowClient(settings)
    yield Sender(client, api_key, cache, injected=False)
    client.close()
