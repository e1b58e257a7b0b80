"""The data file: what survives in it, and which files are left alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from peakhold.errors import PeakholdError
from peakhold.monitor import MonitorServer, Store, StoreError
from peakhold.monitor.schema import SCHEMA_VERSION
from peakhold.monitor.writer import MAX_QUEUED_BYTES


def waiting_writer(store, seconds=10):
    """Wait until the writer has taken what was queued and waits for the file."""
    deadline = time.monotonic() + seconds
    while store._writer._queue and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not store._writer._queue


def test_everything_survives_a_restart(
    data_file, clock, make_api, report, metadata, row
):
    with MonitorServer(data=data_file, clock=clock) as monitor:
        api = make_api(monitor.url)
        api.report(report(row()), Idempotency_Key="window-1")
        api.metadata(metadata((["inference-1"], "shift", "night")))
        before = monitor.store.overview("local")
    with MonitorServer(data=data_file, clock=clock) as monitor:
        api = make_api(monitor.url)
        assert monitor.store.overview("local") == before
        assert api.counts() == 1
        # Keys are remembered as well.
        repeat = api.report(report(row()), Idempotency_Key="window-1")
        assert not repeat.json["stored"]


def test_without_a_data_file_nothing_survives(
    make_api, report, row, monkeypatch, tmp_path
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with MonitorServer() as monitor:
        assert make_api(monitor.url).report(report(row())).status == 200
        assert len(list(tmp_path.rglob("*.db"))) == 1
    assert list(tmp_path.iterdir()) == []
    with MonitorServer() as monitor:
        assert monitor.store.requests("report") == []


def test_a_data_file_keeps_workspaces_apart(data_file, clock, make_api, report, row):
    with MonitorServer(data=data_file, clock=clock, workspace="one") as monitor:
        make_api(monitor.url, "one").report(report(row()), Idempotency_Key="k")
    with MonitorServer(data=data_file, clock=clock, workspace="two") as monitor:
        api = make_api(monitor.url, "two")
        assert api.counts() == 0
        assert api.report(report(row()), Idempotency_Key="k").json["stored"]
        assert api.counts() == 1


def test_two_monitors_on_one_file_share_it(data_file, clock, make_api, report, row):
    with (
        MonitorServer(data=data_file, clock=clock) as one,
        MonitorServer(data=data_file, clock=clock) as other,
    ):
        assert (
            make_api(one.url).report(report(row()), Idempotency_Key="k").json["stored"]
        )
        repeat = make_api(other.url).report(report(row()), Idempotency_Key="k")
        assert not repeat.json["stored"]
        assert make_api(other.url).counts() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such mode bits")
def test_a_new_data_file_is_for_its_owner_only(data_file):
    Store(data_file).close()
    assert stat.S_IMODE(data_file.stat().st_mode) == 0o600


def make_foreign(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (value)")


def make_foreign_with_our_version(path):
    make_foreign(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def make_newer(path):
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def make_truncated(path):
    Store(path).close()
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_foreign, "was not made by the peakhold monitor"),
        (make_foreign_with_our_version, "was not made by the peakhold monitor"),
        (make_newer, f"has format {SCHEMA_VERSION + 1}"),
        (make_truncated, "was not made by the peakhold monitor"),
        (lambda path: path.write_bytes(b"\x00"), "was not made by"),
        (lambda path: path.write_text("notes " * 100), "was not made by"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(data_file, make, reason):
    make(data_file)
    before = data_file.read_bytes()
    with pytest.raises(StoreError, match=reason) as caught:
        Store(data_file)
    assert isinstance(caught.value, PeakholdError)
    assert str(data_file) in str(caught.value)
    assert data_file.read_bytes() == before
    assert list(data_file.parent.iterdir()) == [data_file]


def test_a_monitor_whose_file_is_refused_lets_go_of_its_port(data_file):
    make_foreign(data_file)
    with MonitorServer() as other:
        port = int(other.url.rpartition(":")[2])
    monitor = MonitorServer(port=port, data=data_file)
    for _ in range(2):
        with pytest.raises(StoreError):
            monitor.start()
    with MonitorServer(port=port) as again:
        assert again.url.endswith(f":{port}")


def test_an_empty_file_becomes_a_data_file(data_file):
    data_file.touch()
    Store(data_file).close()
    assert data_file.stat().st_size > 0
    Store(data_file).close()


def test_a_damaged_file_is_refused_and_left_alone(data_file):
    Store(data_file).close()
    damaged = bytearray(data_file.read_bytes())
    damaged[100:4096] = b"\xff" * (4096 - 100)
    data_file.write_bytes(damaged)
    with pytest.raises(StoreError, match="cannot be used"):
        Store(data_file)
    assert data_file.read_bytes() == damaged


@pytest.mark.parametrize("name", ["missing/monitor.db", ".", "nul\x00name"])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(StoreError, match=r"name a file"):
        Store(os.path.join(tmp_path, name))  # noqa: PTH118 - Path would drop "."


def test_a_path_may_hold_what_a_uri_reserves(tmp_path):
    path = tmp_path / "50% of #1?.db"
    store = Store(path)
    store.check()
    store.close()
    assert path.stat().st_size > 0


def test_a_failing_file_is_a_503_and_heals(
    monitor, api, data_file, report, row, caplog
):
    assert api.report(report(row())).status == 200
    with closing(sqlite3.connect(data_file)) as other:
        other.execute("ALTER TABLE results RENAME TO elsewhere")
    for answer in (api.report(report(row())), api.dashboard()):
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert "data file" in answer.json["error"]
    assert "not stored" in caplog.text
    with closing(sqlite3.connect(data_file)) as other:
        other.execute("ALTER TABLE elsewhere RENAME TO results")
    assert api.report(report(row())).status == 200
    # What failed was stored neither whole nor in part.
    assert len(monitor.store.requests("report")) == 2
    assert api.counts() == 2


def test_health_tells_when_the_file_cannot_be_read(api, data_file):
    assert api.send("GET", "/health").json == {"status": "ok"}
    with closing(sqlite3.connect(data_file)) as other:
        other.execute("ALTER TABLE requests RENAME TO elsewhere")
    assert api.send("GET", "/health").status == 503


def test_more_than_fits_into_the_queue_is_a_503(
    monitor, api, data_file, report, row, caplog
):
    body = b'{"inference_results": [], "extra": "%s"}' % (b"x" * 1_000_000)
    fits = MAX_QUEUED_BYTES // len(body)
    store = monitor.store
    with closing(sqlite3.connect(data_file, isolation_level=None)) as other:
        # The writer waits for this lock with the first body, the rest queues up.
        other.execute("BEGIN IMMEDIATE")
        first = store.submit("report", "local", body, None)
        waiting_writer(store)
        queued = [store.submit("report", "local", body, None) for _ in range(fits)]
        answer = api.report(body)
        assert answer.status == 503
        assert "send this one again" in answer.json["error"]
        other.execute("ROLLBACK")
    assert all(future.result(timeout=20) for future in [first, *queued])
    assert api.report(report(row())).status == 200
    assert len(store.requests("report")) == fits + 2


def test_a_write_that_waits_holds_up_nobody_else(api, monitor, data_file, report, row):
    answers = []
    sender = threading.Thread(target=lambda: answers.append(api.report(report(row()))))
    with closing(sqlite3.connect(data_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sender.start()
        assert api.send("GET", "/?api_key=k").status == 200
        assert api.counts() == 0
        assert api.dashboard().status == 200
        # Control: all the while the write was waiting.
        assert answers == []
        other.execute("ROLLBACK")
    sender.join(20)
    assert [answer.status for answer in answers] == [200]
    assert api.counts() == 1


def test_requests_that_wait_share_one_commit(data_file):
    store = Store(data_file)
    statements = []
    store._writer._connection.set_trace_callback(statements.append)
    body = b'{"inference_results": []}'
    with closing(sqlite3.connect(data_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        futures = [store.submit("report", "local", body, None)]
        waiting_writer(store)
        futures += [store.submit("report", "local", body, None) for _ in range(100)]
        other.execute("ROLLBACK")
    assert all(future.result(timeout=20) for future in futures)
    store.close()
    assert sum(s.startswith("INSERT INTO requests") for s in statements) == 101
    assert statements.count("COMMIT") == 2


def test_closing_stores_what_is_queued(data_file, report):
    store = Store(data_file)
    body = b'{"inference_results": []}'
    futures = [store.submit("report", "local", body, None) for _ in range(500)]
    store.close()
    store.close()
    assert all(future.result(timeout=0) for future in futures)
    with pytest.raises(StoreError, match="stopping"):
        store.submit("report", "local", body, None)
    again = Store(Path(data_file))
    assert len(again.requests("report")) == 500
    again.close()
