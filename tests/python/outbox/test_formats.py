"""Outboxes of every format that was ever kept are delivered by every later version.

``scripts/keep_format.py`` has written the files. What each record sends stands beside
them, and is compared byte for byte: a server may have had it before.
"""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from peakhold.delivery import Dispatcher
from peakhold.delivery.exporter import DELIVERED, Exporter
from peakhold.outbox import admin
from peakhold.outbox.schema import SCHEMA_VERSION, NewerSchemaError
from peakhold.records import Destination, content

FILES = sorted(Path(__file__).with_name("formats").glob("*.gz"))
HERE = Destination("http://here", "0123456789abcdef")
THERE = Destination("http://there", "fedcba9876543210", "a.Client by call")


class Collecting(Exporter):
    """Keeps what it is given."""

    def __init__(self, destination):
        self.destination = destination
        self.bodies = {}

    def export(self, records):
        self.bodies.update((record.id, record.body) for record in records)
        return [DELIVERED] * len(records)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def kept(request, state):
    """A state directory with the outbox of a dead process, and its bodies."""
    state.outbox.write_bytes(gzip.decompress(request.param.read_bytes()))
    said = json.loads(request.param.with_suffix(".json").read_text("ascii"))
    return {name: base64.b64decode(body) for name, body in said.items()}


def delivered(state, clock):
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    exporters = [Collecting(HERE), Collecting(THERE)]
    for exporter in exporters:
        dispatcher.register(exporter)
    for _ in range(30):
        dispatcher.step()
        clock.advance(20.0)
    counts = dispatcher.counts()
    return {**exporters[0].bodies, **exporters[1].bodies}, counts


def test_the_current_format_is_kept():
    assert f"version-{SCHEMA_VERSION}" in {file.stem for file in FILES}


def test_all_of_it_arrives_as_it_was_sent_then(kept, state, clock):
    states = {each["id"]: each["state"] for each in admin.listed(state)}
    assert set(states.values()) == {"pending", "parked", "dead"}
    assert admin.problems(state) == []
    assert admin.retry(state)[0] == 2
    found, counts = delivered(state, clock)
    assert found == kept
    assert counts.delivered == counts.sealed == len(kept) + 1  # one stands for two
    assert any(b"quote" in body for body in found.values())


def test_a_body_that_would_differ_is_noticed(kept, state, clock, monkeypatch):
    """The control."""
    monkeypatch.setattr(content, "_SOURCE", "workflows")
    admin.retry(state)
    found, _ = delivered(state, clock)
    assert found.keys() == kept.keys()
    assert found != kept


def test_a_later_format_is_refused_and_left_alone(kept, state, clock):
    with closing(sqlite3.connect(state.outbox)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = state.outbox.read_bytes()
    found, counts = delivered(state, clock)
    assert (found, counts.sealed) == ({}, 0)
    assert state.outbox.read_bytes() == before
    with pytest.raises(NewerSchemaError, match="later version"):
        admin.listed(state)
