"""An outbox on disk, the process's own, that the test steps, and what fills it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from stand_ins import DictCache, StatusError, report

from peakhold.delivery import Dispatcher, Sender, process
from peakhold.metrics import figures
from peakhold.outbox.schema import SCHEMA_VERSION


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture
def dispatcher(state, clock, monkeypatch):
    """The process's, on disk, without a thread."""
    made = Dispatcher(state, clock=clock, jitter=lambda low, high: high, worker=False)
    monkeypatch.setattr(process, "_current", made)
    return made


@pytest.fixture
def lend(dispatcher, api_key):
    """Makes senders; what is not given is the test's."""

    def make(client, key=api_key):
        return Sender(client, key, DictCache(), injected=True)

    return make


@pytest.fixture
def sender(lend, client):
    return lend(client)


@pytest.fixture
def troubled(dispatcher, sender, client):
    """An outbox with one record delivered and one in each state."""
    dispatcher.deliver(report(sender, "w"), sender)
    dispatcher.step()
    client.failures = [StatusError(422)]
    dispatcher.deliver(report(sender, "x"), sender)
    dispatcher.step()
    client.failures = [StatusError(402)]
    dispatcher.deliver(report(sender, "y"), sender)
    dispatcher.step()
    dispatcher.deliver(report(sender, "z"), sender)
    dispatcher.committer.commit()
    return dispatcher


@pytest.fixture
def aged(troubled, clock):
    """Ten seconds, during which nobody used the outbox."""
    clock.now += 10


@pytest.fixture
def readings(monkeypatch):
    """What the exporters have read, as `health()` returned it."""
    found = []

    def health():
        found.append(original())
        return found[-1]

    original = figures.health
    monkeypatch.setattr(figures, "health", health)
    return found


@pytest.fixture
def newer_version(troubled, state):
    """Makes the outbox one of a later version, which cannot be read, or ours again."""

    def make(newer):
        troubled.outbox._disk.close()
        with closing(sqlite3.connect(state.outbox)) as database:
            database.execute(f"PRAGMA user_version = {99 if newer else SCHEMA_VERSION}")

    return make
