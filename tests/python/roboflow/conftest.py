"""A server that misbehaves, and clients that talk to it."""

from __future__ import annotations

import pytest

from peakhold.roboflow import RoboflowClient, Settings
from peakhold.testing import MisbehavingServer

# Quoting changes every one of the special characters.
CANARY = "canary/+key=é&%7e"


@pytest.fixture
def canary():
    return CANARY


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with MisbehavingServer() as running:
        yield running
    assert running.problems == []


@pytest.fixture
def tls_server():
    with MisbehavingServer(tls=True) as running:
        yield running
    assert running.problems == []


@pytest.fixture
def make_client(server):
    """A client of the server; settings as keywords."""
    clients = []

    def make(**settings):
        client = RoboflowClient(Settings(**{"api_base_url": server.url, **settings}))
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client):
    return make_client()
