"""Outboxes of every format that was ever kept are delivered by every later version.

``scripts/keep_format.py`` has written the files. What each record sends stands beside
them, and is compared byte for byte: a server may have had it before.
"""

from __future__ import annotations

import base64
import gzip
import json
import runpy
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from stand_ins import window_of

from peakhold.delivery import Dispatcher
from peakhold.delivery.exporter import DELIVERED, Exporter
from peakhold.outbox import admin
from peakhold.outbox.packing import unpack
from peakhold.outbox.schema import SCHEMA_VERSION, NewerSchemaError
from peakhold.records import DestinationKey, content

FILES = sorted(Path(__file__).with_name("formats").glob("*.gz"))
SCRIPT = Path(__file__).parents[3] / "scripts" / "keep_format.py"
HERE = DestinationKey("http://here", "0123456789abcdef")
THERE = DestinationKey("http://there", "fedcba9876543210", "a.Client by call")


class Collecting(Exporter):
    """Keeps what it is given."""

    def __init__(self, destination):
        self.destination = destination
        self.sent = []

    def export(self, records):
        self.sent += [(record.id, record.body) for record in records]
        return [DELIVERED] * len(records)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request):
    return request.param


@pytest.fixture
def kept(file, state):
    """A state directory with the outbox of a dead process, and its bodies."""
    state.outbox.write_bytes(gzip.decompress(file.read_bytes()))
    said = json.loads(file.with_suffix(".json").read_text("ascii"))
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
    return sorted(exporters[0].sent + exporters[1].sent), counts


def test_the_current_format_is_kept():
    """Whoever changes an encoding changes the version of the outbox, too."""
    assert f"version-{SCHEMA_VERSION}" in {file.stem for file in FILES}
    encoded = window_of({}).encode()
    assert (SCHEMA_VERSION, content.ENCODING_VERSION, encoded[0]) == (4, 2, 1)


def test_what_is_written_now_is_what_was_kept(tmp_path):
    """Whatever the version of zlib that compresses it."""
    target = tmp_path / "now.gz"
    keep_format = runpy.run_path(str(SCRIPT))
    keep_format["write"](target)
    now, then = (
        rows_of(gzip.decompress(file.read_bytes()), tmp_path / "outbox")
        for file in (target, FILES[-1])
    )
    assert now == then
    assert target.with_suffix(".json").read_text() == FILES[-1].with_suffix(
        ".json"
    ).read_text("ascii")


def rows_of(outbox, path):
    """What an outbox has, but for the owner and times of its own clock."""
    path.write_bytes(outbox)
    with closing(sqlite3.connect(path)) as database:
        contents = database.execute(
            "SELECT id, encoding_version, packed, created FROM contents ORDER BY id"
        ).fetchall()
        records = database.execute(
            "SELECT records.id, contents.id, first, last, destination, kind, merge_key,"
            " seals, state, attempts, reason, last_error, next_at IS NULL"
            " FROM records JOIN contents ON contents.number = content"
            " ORDER BY records.number"
        ).fetchall()
        parts = database.execute(
            "SELECT parts.id, destination, name, frequency, encoding_version, packed,"
            " seals FROM parts JOIN shares ON shares.number = share ORDER BY parts.id"
        ).fetchall()
    return (
        [(*row[:2], unpack(row[2]), row[3]) for row in contents],
        records,
        [(*row[:5], unpack(row[5]), row[6]) for row in parts],
    )


def test_all_of_it_arrives_as_it_was_sent_then(kept, file, state, clock):
    states = {each["id"]: each["state"] for each in admin.listed(state)}
    assert set(states.values()) == {"pending", "parked", "dead"}
    assert admin.problems(state) == []
    assert admin.retry(state)[0] == 2
    found, counts = delivered(state, clock)
    assert found == sorted(kept.items())
    # One stands for two, and so does that of a shared window where there are such.
    more = 1 if file.stem == "version-3" else 2
    assert counts.delivered == counts.sealed == len(kept) + more
    assert any(b"quote" in body for _, body in found)


def test_a_body_that_would_differ_is_noticed(kept, state, clock, monkeypatch):
    """The control."""
    monkeypatch.setattr(content, "_SOURCE", "workflows")
    admin.retry(state)
    found, _ = delivered(state, clock)
    assert {record_id for record_id, _ in found} == kept.keys()
    assert found != sorted(kept.items())


def test_a_later_format_is_refused_and_left_alone(kept, state, clock):
    with closing(sqlite3.connect(state.outbox)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = state.outbox.read_bytes()
    found, counts = delivered(state, clock)
    assert (found, counts.sealed) == ([], 0)
    assert state.outbox.read_bytes() == before
    with pytest.raises(NewerSchemaError, match="later version"):
        admin.listed(state)
