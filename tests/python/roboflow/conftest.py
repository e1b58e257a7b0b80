"""A server that misbehaves, and clients that talk to it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from peakhold.roboflow import RoboflowClient, Settings

NAME = "misbehaving_server"
if NAME not in sys.modules:
    path = Path(__file__).parents[1] / "support" / f"{NAME}.py"
    spec = spec_from_file_location(NAME, path)
    sys.modules[NAME] = module = module_from_spec(spec)
    spec.loader.exec_module(module)

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
    with sys.modules[NAME].MisbehavingServer() as running:
        yield running
    assert running.problems == []


@pytest.fixture
def tls_server():
    with sys.modules[NAME].MisbehavingServer(tls=True) as running:
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
